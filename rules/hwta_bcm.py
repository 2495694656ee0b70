"""HWTA-BCM: BCM among hard winners of a competition over directions.

    Δw_k = D_k / max|D|                          max over the layer
    D_k  = ⟨y_k (y_k − θ_k) x⟩                   y_k = cos(x, w_k) for the row's winner, 0 for its losers
    θ_k ← (1 − η) θ_k + η ⟨y_k²⟩                 before D is formed; θ = 1 at first

Jimenez Nimmo & Mondragon 2025, arXiv:2501.17266. The cosine here is one: w is divided by its norm over the whole
patch. The published code divides it by its norm over the input channels only, at each position of the kernel, and
adds surround modulation in some variants; neither can be said over rows, and both are left out. It also hands its
cosine on to the next layer, where here, as for every rule, a layer hands on u = w x. In the mean, losers count as
y = 0. A winner whose cosine is negative is strengthened, as in the code, though BCM means y ≥ 0.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from hebbbench import Pre, Rule, cosine, hebb, k_wta, layer_max


class HardWTABCM(Rule):
    threshold_rate: Annotated[float, Field(gt=0, le=1)] = 0.5  # η

    def init(self, weight: Tensor) -> dict[str, Tensor]:
        return {"threshold": weight.new_ones(weight.shape[0])}

    def delta(self, pre: Pre, post: Tensor, weight: Tensor, state: dict[str, Tensor]) -> Tensor:
        match = cosine(pre, post, weight)
        y = match * k_wta(match, 1)
        theta = state["threshold"].lerp_(y.square().mean(0), self.threshold_rate)
        return layer_max(hebb(y * (y - theta), pre))
