"""SoftHebb: soft winner-take-all plasticity in which the losers unlearn what the winner learns.

    Δw_k = r_k · D_k / max|D|                  max over the layer
    D_k  = ⟨y_k (x − u_k w_k)⟩                 u = w x,  p = softmax(u / τ) over units
    y_k  = p_k for the row's winner, −p_k for its losers
    r_k  = | ‖w_k‖ − 1 |^q                     rate that falls as a unit nears unit norm

Journé, Garcia Rodriguez, Guo & Moraitis 2023, arXiv:2209.11883; theory in Moraitis et al. 2022, arXiv:2107.05747.
With anti_hebbian off, y = p: the plain rule of the theory paper.
"""

from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from hebbbench import Pre, Rule, decay, hebb, layer_max, losers_flipped, norm_rate, soft_wta


class SoftHebb(Rule):
    temperature: PositiveFloat = 1.0  # τ
    rate_power: NonNegativeFloat = 0.5  # q
    anti_hebbian: bool = True

    def delta(self, pre: Pre, post: Tensor, weight: Tensor) -> Tensor:
        y = soft_wta(post, self.temperature)
        if self.anti_hebbian:
            y = losers_flipped(y, post)
        d = hebb(y, pre) - decay(y * post, weight)
        return norm_rate(weight, self.rate_power) * layer_max(d)
