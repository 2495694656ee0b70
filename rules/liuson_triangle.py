"""Liuson's rule with Triangle activity: units compete by how far they exceed the mean of all and their own mean.

    Δw_k = ⟨s_k y*_k x⟩,  then  w_k ← w_k / ‖w_k‖
    y*   = softmax((y − ȳ) / τ) over units       y = relu(u − mean of u over units),  u = w x
    s_k  = 1 for the largest y* of the row; 0 where y*_k < 1/K; −1 for the others          K units
    ȳ_k ← λ ȳ_k + (1 − λ) ⟨y_k⟩                  after Δw is formed; ȳ = 0 at first

Liuson 2023, "Learning Dynamics in Competitive Hebbian Learning", the variant run on CIFAR-10; Triangle from Coates,
Lee & Ng 2011. All that `liuson` says of the paper's gaps holds here too. That the rule competes with the same activity
that the read-out sees, as the paper's single f suggests, is our reading: recipes set the network's activation as well.
"""

from typing import Annotated

from pydantic import Field, PositiveFloat
from torch import Tensor

from hebbbench import Pre, Rule, activity, hebb, k_wta, soft_wta, unit_norm


class LiusonTriangle(Rule):
    temperature: PositiveFloat = 1.0  # τ
    memory: Annotated[float, Field(ge=0, lt=1)] = 0.99  # λ

    def init(self, weight: Tensor) -> dict[str, Tensor]:
        return {"mean": weight.new_zeros(weight.shape[0])}

    def delta(self, pre: Pre, post: Tensor, state: dict[str, Tensor]) -> Tensor:
        y = activity(post, "triangle")
        rival = soft_wta(y - state["mean"], self.temperature)
        state["mean"].lerp_(y.mean(0), 1 - self.memory)
        best = k_wta(rival, 1)
        silent = rival < 1 / y.shape[1]
        s = best.where((best > 0) | silent, -1.0)
        return hebb(s * rival, pre)

    def constrain(self, weight: Tensor) -> Tensor:
        return unit_norm(weight)
