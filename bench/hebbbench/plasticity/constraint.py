"""What a weight may be after a step: constraints a rule lays on each unit's weight vector."""

from __future__ import annotations

import torch
from torch import Tensor


def unit_norm(weight: Tensor, p: float = 2.0) -> Tensor:
    """Each unit's weights divided by their p-norm, (out, in). A unit whose weights are all 0 stays so."""
    norms: Tensor = torch.linalg.vector_norm(weight, ord=p, dim=1, keepdim=True)
    return weight / norms.clamp_min(torch.finfo(weight.dtype).tiny)


def standardized(weight: Tensor) -> Tensor:
    """Each unit's weights with mean 0 and variance 1, (out, in). A unit whose weights are all 0 stays so."""
    centred = weight - weight.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    return centred / spread.clamp_min(torch.finfo(weight.dtype).tiny)
