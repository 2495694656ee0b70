"""Krotov-Hopfield: the best unit of a row learns its input, the k-th best unlearns it, and no other takes part.

    Δw_i = D_i / max|D|                          max over the layer
    D_i  = ⟨g_i (x − q_i w_i)⟩                   q = sign(w)|w|^(p−1) x
    g_i  = 1 for the largest q of the row, −Δ for the k-th largest, 0 for all between and below

Krotov & Hopfield 2019, PNAS 116:7723; k, p and Δ as in the notebook that comes with it. Units settle at Σ|w|^p = 1,
without a constraint. The notebook lets the learning rate fall linearly to 0: use `annealing: linear`. For p = 2,
q is the layer's own potential; any other p needs a second product with x, and copies every patch of a convolution.
"""

from typing import Annotated

from pydantic import Field, NonNegativeFloat
from torch import Tensor

from hebbbench import Pre, Rule, decay, hebb, k_wta, layer_max


class KrotovHopfield(Rule):
    p: Annotated[float, Field(ge=1)] = 2.0  # p
    k: Annotated[int, Field(ge=2)] = 2  # k
    unlearning: NonNegativeFloat = 0.4  # Δ

    def delta(self, pre: Pre, post: Tensor, weight: Tensor) -> Tensor:
        q = post if self.p == 2 else pre.rows @ (weight.sign() * weight.abs().pow(self.p - 1)).T
        best, kth = k_wta(q, 1), k_wta(q, self.k) - k_wta(q, self.k - 1)
        g = best - self.unlearning * kth
        return layer_max(hebb(g, pre) - decay(g * q, weight))
