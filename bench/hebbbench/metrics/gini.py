"""How unequally learning is spread over the units of a layer."""

from __future__ import annotations

import torch
from torch import Tensor


def step_size(delta: Tensor) -> Tensor:
    """a_k = ‖Δw_k‖₂, how far one update would move each unit at learning rate 1, (out,).

    Args:
        delta: Δw, (out, in).
    """
    sizes: Tensor = torch.linalg.vector_norm(delta, dim=1)
    return sizes


def gini(a: Tensor) -> float | None:
    """The Gini coefficient of a ≥ 0, (n,): 0 if all are equal, 1 − 1/n if one has everything.

        G = Σ_ij |a_i − a_j| / (2 n² ā) = 2 Σ_i i·a_(i) / (n Σ a) − (n + 1)/n        a_(1) ≤ … ≤ a_(n)

    With the factor 2, by which a share p of zeros beside equal values has G = p (Liuson 2023, appendix A; the first
    display there lacks it). The second form, by sorting, is what is computed, in float64.

    Returns:
        G, or None if all are 0.
    """
    values = a.detach().double().sort().values
    total = values.sum()
    n = len(values)
    if n == 0 or total == 0:
        return None
    ranks = torch.arange(1, n + 1, dtype=torch.float64, device=values.device)
    return (2 * (ranks * values).sum() / (n * total) - (n + 1) / n).item()
