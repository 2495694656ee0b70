"""HWTA-BCM with the update of its public code: each position of a kernel is brought to unit norm by itself.

    Δw_k = D_k / max|D|                          max over the layer
    D_k  = ⟨y_k (y_k − θ_k) x⟩                   y_k = m_k for the row's winner, 0 for its losers
    θ_k ← (1 − η) θ_k + η ⟨y_k²⟩                 before D is formed; θ = 1 at first
    m_k  = Σ_p ŵ_kp x_p / ‖x‖                    ŵ_kp = w_kp / ‖w_kp‖ over the channels at position p of the kernel

Jimenez Nimmo & Mondragon 2025, arXiv:2501.17266. Their m is called a cosine, but of a kernel of P positions it reaches
√P. `hwta_bcm` has the cosine; on a linear layer, whose kernel is one position, the two are one rule. Only the update
is theirs: what a layer hands on is m in their code and u = w x here, as for every rule, and their surround modulation,
a filter over neighbouring positions' activities, is left out.
"""

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from hebbbench import Pre, Rule, hebb, k_wta, layer_max


class HardWTABCMPublished(Rule):
    expected_failures: ClassVar[dict[str, str]] = {
        "convolution": "a row does not say which of its columns are the channels of one position of the kernel"
    }

    threshold_rate: Annotated[float, Field(gt=0, le=1)] = 0.5  # η

    def init(self, weight: Tensor) -> dict[str, Tensor]:
        return {"threshold": weight.new_ones(weight.shape[0])}

    def delta(self, pre: Pre, weight: Tensor, state: dict[str, Tensor]) -> Tensor:
        positions = F.normalize(weight.unflatten(1, (-1, pre.channels)), dim=2).flatten(1)
        lengths = pre.squared_norm.sqrt().clamp_min(torch.finfo(weight.dtype).tiny)
        match = pre.potential(positions) / lengths.unsqueeze(1)
        y = match * k_wta(match, 1)
        theta = state["threshold"].lerp_(y.square().mean(0), self.threshold_rate)
        return layer_max(hebb(y * (y - theta), pre))
