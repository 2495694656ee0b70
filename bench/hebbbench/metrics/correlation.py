"""How alike the units of a layer respond."""

from __future__ import annotations

import torch
from torch import Tensor


def neuron_correlation(y: Tensor) -> float | None:
    """Mean |ρ_jk| over pairs j ≠ k of Pearson's correlation between units over samples, for y (n, out).

    Units that do not vary have no correlation and are left out.

    Returns:
        The mean, 0 … 1, or None if fewer than two units vary.
    """
    centred = (y - y.mean(0)).float()
    norms = torch.linalg.vector_norm(centred, dim=0)
    varying = norms > 1e-6 * norms.max().clamp_min(torch.finfo(torch.float32).tiny)
    units = int(varying.sum())
    if units < 2:
        return None
    unit = centred[:, varying] / norms[varying]
    total: float = (unit.T @ unit).abs_().clamp_(max=1).sum(dtype=torch.float64).item()
    return (total - units) / (units * (units - 1))
