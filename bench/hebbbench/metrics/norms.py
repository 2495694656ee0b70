"""How long the weight vectors of a layer's units are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Norms(NamedTuple):
    """Mean, standard deviation (population) and maximum of ‖w_k‖₂ over units."""

    mean: float
    sd: float
    max: float


def weight_norms(weight: Tensor) -> Norms:
    """Of a weight (out, in)."""
    norms = torch.linalg.vector_norm(weight.detach(), dim=1).double()
    return Norms(norms.mean().item(), norms.std(correction=0).item(), norms.max().item())
