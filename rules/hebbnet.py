"""HebbNet: Hebb about a running mean of activity, kept for the most active units only.

    Δw_k = ⟨m_k (y_k − T_k) x⟩,  then  w_k ← w_k / ‖w_k‖          y = relu(u),  u = w x
    m_k  = 1 for the share 1 − p of units most active, else 0
    T_k ← λ T_k + (1 − λ) ⟨y_k⟩                  after Δw is formed; T = 0 at first

Gupta, Ambikapathi & Ramasamy, ICASSP 2021, as Liuson 2023 runs it: p = 0.8, a moving mean for T (the original has
the mean of all history) and unit norm. The texts do not settle what is made sparse: `keep` sample takes the most
active units of each row, unit those of the batch's mean, weight the entries of Δw with the largest magnitude. Units
are ranked by u, which orders y and breaks its ties at 0. λ is given nowhere; 0.99 is ours. Whoever is active at
first tends to stay so: a Gini coefficient of p says only that the same units were kept at every step.
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from hebbbench import Pre, Rule, hebb, k_wta, unit_norm


class HebbNet(Rule):
    sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.8  # p
    memory: Annotated[float, Field(ge=0, lt=1)] = 0.99  # λ
    keep: Literal["sample", "unit", "weight"] = "sample"

    def init(self, weight: Tensor) -> dict[str, Tensor]:
        return {"mean": weight.new_zeros(weight.shape[0])}

    def delta(self, pre: Pre, post: Tensor, state: dict[str, Tensor]) -> Tensor:
        y = post.relu()
        above = y - state["mean"]
        state["mean"].lerp_(y.mean(0), 1 - self.memory)
        if self.keep == "weight":
            d = hebb(above, pre)
            return d * self._largest(d.abs().view(1, -1)).view_as(d)
        return hebb(above * self._largest(post if self.keep == "sample" else y.mean(0, keepdim=True)), pre)

    def constrain(self, weight: Tensor) -> Tensor:
        return unit_norm(weight)

    def _largest(self, a: Tensor) -> Tensor:
        return k_wta(a, max(1, round((1 - self.sparsity) * a.shape[1])))
