"""The terms equations are made of. Letters as in the papers: x (B, in), u and y (B, out), w (out, in)."""

from __future__ import annotations

import torch
from torch import Tensor

from hebbbench.plasticity.signals import Pre


def hebb(a: Tensor, pre: Pre) -> Tensor:
    """⟨a xᵀ⟩, the Hebbian term: the mean over rows of the outer product, shape (out, in).

    Args:
        a: postsynaptic factor, (B, out).
        pre: presynaptic activity, rows (B, in).
    """
    return pre.outer(a)


def decay(a: Tensor, weight: Tensor) -> Tensor:
    """⟨a⟩ w, the forgetting term: each unit's weights times the mean of its factor, shape (out, in).

    Args:
        a: the factor that drives forgetting, (B, out); Oja's is y².
        weight: w, (out, in).
    """
    return a.mean(0).unsqueeze(1) * weight


def layer_max(delta: Tensor) -> Tensor:
    """The update divided by its largest magnitude in the layer, so that no weight moves by more than the rate.

    With it the sum and the mean over a batch are the same update, and the number of steps, not of samples,
    decides how much is learnt. Source: the public code of SoftHebb (arXiv:2209.11883) and GHL (arXiv:2601.21367).
    """
    return delta / (delta.abs().max() + 1e-30)


def norm_rate(weight: Tensor, power: float) -> Tensor:
    """|‖w_k‖ − 1|^q, one factor a unit, shape (out, 1): units near unit norm have almost finished learning.

    Journé et al. 2023, arXiv:2209.11883, with the absolute value that their code has.
    """
    norms: Tensor = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
    return (norms.sub(1).abs() + 1e-10).pow(power)
