"""Whether changes of one weight go the same way: two of one step, or those of all steps."""

from __future__ import annotations

import torch
from torch import Tensor


def cosine(a: Tensor, b: Tensor) -> float | None:
    """cos(a, b) = ⟨a, b⟩ / (‖a‖ ‖b‖) over all entries of two tensors of one shape, in float64; None if one is 0."""
    x, y = a.detach().double().flatten(), b.detach().double().flatten()
    norms = x.norm() * y.norm()
    return None if norms == 0 else (x @ y / norms).clamp(-1, 1).item()


def sign_agreement(delta: Tensor, descent: Tensor) -> float | None:
    """Share of weights with sign(Δw) = sign(−∂L/∂w), where neither is exactly 0; chance is 0.5.

    Args:
        delta: Δw, any shape; descent: −∂L/∂w, the same shape.

    Returns:
        The share, or None if one of the two is 0 everywhere.
    """
    both = (delta != 0) & (descent != 0)
    counted = both.sum()
    if counted == 0:
        return None
    agree = (torch.sign(delta) == torch.sign(descent)) & both
    return (agree.sum() / counted).item()


def sign_consistency(signs: Tensor, steps: int) -> float:
    """Mean over weights of |mean_t sign(Δw_t)|: 1 if each always moved the same way, 0 if as often back as forth.

    Of signs that are drawn at random it is √(2/πn) for n steps. A step of exactly 0 counts in neither direction.

    Args:
        signs: Σ_t sign(Δw_t), any shape; steps: n.
    """
    return signs.abs().mean(dtype=torch.float64).item() / steps
