"""k-WTA: the k units that match best move towards the input; thresholds rise in units that win too often.

    Δw_i = ⟨z_i (x − w_i)⟩,  then  w_i ← w_i / ‖w_i‖
    z_i  = 1 if u_i − θ_i is among the k largest of its row, else 0          u = w x
    θ_i ← θ_i + μ (⟨z_i⟩ − k / K)                K units

Grossberg's instar under hard competition, with the adaptive thresholds of Miconi 2021, arXiv:2107.01729, which serve
as DeSieno's conscience does. μ must suit the scale of u: Miconi has 3 and 10 on standardized inputs, and 0 turns it
off. The rate each unit aims at is k/K: since exactly k win, any other would move all thresholds alike and choose the
same winners. Miconi also lets no unit win whose u − θ is not positive; here each row has k winners. His thresholds
go on moving while the network is only probed; here they move in training alone.
"""

from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from hebbbench import Pre, Rule, decay, hebb, k_wta, unit_norm


class HardWTA(Rule):
    k: PositiveInt = 1
    threshold_rate: NonNegativeFloat = 3.0  # μ

    def init(self, weight: Tensor) -> dict[str, Tensor]:
        return {"threshold": weight.new_zeros(weight.shape[0])}

    def delta(self, pre: Pre, post: Tensor, weight: Tensor, state: dict[str, Tensor]) -> Tensor:
        theta = state["threshold"]
        z = k_wta(post - theta, self.k)
        theta += self.threshold_rate * (z.mean(0) - self.k / z.shape[1])
        return hebb(z, pre) - decay(z, weight)

    def constrain(self, weight: Tensor) -> Tensor:
        return unit_norm(weight)
