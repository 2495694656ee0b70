"""SoftHebb as its equation is printed: no division by the layer's largest entry, no rate that falls with the norm.

    Δw_k = ⟨y_k (x − u_k w_k)⟩                  u = w x,  p = softmax(u / τ) over units
    y_k  = p_k for the row's winner, −p_k for its losers

Moraitis et al. 2022, arXiv:2107.05747, with the losers' sign of arXiv:2209.11883, as Liuson 2023 writes it down. The
public code of SoftHebb does more (see `softhebb`); with the same rate the two move weights by very different amounts.
With anti_hebbian off, y = p.
"""

from pydantic import PositiveFloat
from torch import Tensor

from hebbbench import Pre, Rule, decay, hebb, losers_flipped, soft_wta


class SoftHebbPlain(Rule):
    temperature: PositiveFloat = 1.0  # τ
    anti_hebbian: bool = True

    def delta(self, pre: Pre, post: Tensor, weight: Tensor) -> Tensor:
        y = soft_wta(post, self.temperature)
        if self.anti_hebbian:
            y = losers_flipped(y, post)
        return hebb(y, pre) - decay(y * post, weight)
