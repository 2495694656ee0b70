"""Whether an update goes the way the gradient would."""

from __future__ import annotations

import torch
from torch import Tensor


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
