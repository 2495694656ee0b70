"""In how many directions features vary."""

from __future__ import annotations

import torch
from torch import Tensor

PER_FEATURE = 5
"""Samples a feature below which the estimate is far too low to be one."""


def effective_rank(features: Tensor) -> float | None:
    """exp H(p), p_i = σ_i / Σ σ, of the features centred over samples: 1 … min(n − 1, F).

    H is Shannon's entropy in nats and σ the singular values of the centred (n, F) matrix (Roy & Vetterli 2007). They
    are computed as roots of the eigenvalues of the smaller of its two Gram matrices, in float64. An estimate from few
    samples is too low: n should be `PER_FEATURE` times F or more.

    Returns:
        The effective rank, or None if no feature varies.
    """
    centred = features.double()
    centred = centred - centred.mean(0)
    gram = centred.T @ centred if centred.shape[0] >= centred.shape[1] else centred @ centred.T
    # Below float64's resolution an eigenvalue is rounding, and its root would not be small.
    values = torch.linalg.eigvalsh(gram)
    floor = values.max() * len(values) * torch.finfo(torch.float64).eps
    sigma = values[values > floor].clamp_min(0).sqrt()
    if len(sigma) == 0:
        return None
    p = sigma / sigma.sum()
    return torch.exp(-(p * p.log()).sum()).item()
