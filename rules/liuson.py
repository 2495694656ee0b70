"""Liuson's rule: units compete by how far each exceeds its own mean; the best learns, other rivals unlearn.

    Δw_k = ⟨s_k y*_k x⟩,  then  w_k ← w_k / ‖w_k‖
    y*   = softmax((y − ȳ) / τ) over units       y = relu(u),  u = w x
    s_k  = 1 for the largest y* of the row; 0 where y*_k < 1/K; −1 for the others          K units
    ȳ_k ← λ ȳ_k + (1 − λ) ⟨y_k⟩                  after Δw is formed; ȳ = 0 at first

Liuson 2023, "Learning Dynamics in Competitive Hebbian Learning". The paper prints s = 0 where y* > 1/K, against its
own reason, which is to silence the units least active: `mask` intended is the formula above, printed the paper's.
Either way the largest counts first. λ is given nowhere; 0.99 is ours. A row that moves no unit has y* = 1/K
everywhere, and there s is 1 for the first unit and −1 for all others.
"""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat
from torch import Tensor

from hebbbench import Pre, Rule, hebb, k_wta, soft_wta, unit_norm


class Liuson(Rule):
    temperature: PositiveFloat = 1.0  # τ
    memory: Annotated[float, Field(ge=0, lt=1)] = 0.99  # λ
    mask: Literal["intended", "printed"] = "intended"  # s

    def init(self, weight: Tensor) -> dict[str, Tensor]:
        return {"mean": weight.new_zeros(weight.shape[0])}

    def delta(self, pre: Pre, post: Tensor, state: dict[str, Tensor]) -> Tensor:
        y = post.relu()
        rival = soft_wta(y - state["mean"], self.temperature)
        state["mean"].lerp_(y.mean(0), 1 - self.memory)
        even = 1 / y.shape[1]
        silent = rival < even if self.mask == "intended" else rival > even
        best = k_wta(rival, 1)
        s = best.where((best > 0) | silent, -1.0)
        return hebb(s * rival, pre)

    def constrain(self, weight: Tensor) -> Tensor:
        return unit_norm(weight)
