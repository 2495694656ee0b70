"""GHL with one global reward in place of the gradient: the Hebbian step, forward if errors fell, backward if not.

    Δw = R · H / max|H|                          max over the layer
    H  = ⟨y (x − u w)⟩                           u = w x,  y = softmax(u / τ) over units
    R  = sign(Ē − E)                             E = mean over samples of 1 − p(label) = Σ|error| / 2
    Ē ← λ Ē + (1 − λ) E                          after Δw is formed; Ē = 1, all wrong, at first

Our control for GHL (arXiv:2601.21367), in no paper: the direction is global, as GHL's, but carries one bit for the
whole network instead of one a weight. The reward is that of the batch at hand before its step, against a moving mean;
λ = 0 compares with the batch before. The read-out learns by its true gradient, as with GHL.
"""

from typing import Annotated

from pydantic import Field, PositiveFloat
from torch import Tensor

from hebbbench import Pre, Rule, decay, hebb, layer_max, soft_wta


class GHLReward(Rule):
    temperature: PositiveFloat = 1.0  # τ
    memory: Annotated[float, Field(ge=0, lt=1)] = 0.9  # λ

    def init(self, weight: Tensor) -> dict[str, Tensor]:
        return {"expected": weight.new_ones(())}

    def delta(self, pre: Pre, post: Tensor, weight: Tensor, error: Tensor, state: dict[str, Tensor]) -> Tensor:
        y = soft_wta(post, self.temperature)
        h = hebb(y, pre) - decay(y * post, weight)
        wrong = error.abs().sum(1).mean() / 2
        reward = (state["expected"] - wrong).sign()
        state["expected"].lerp_(wrong, 1 - self.memory)
        return reward * layer_max(h)
