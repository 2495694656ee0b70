"""HaH: backprop, plus a Hebbian pull on the units that respond most and an anti-Hebbian one on all others.

    L = C − α ⟨mean of the K largest o − λ mean of the others⟩ + ℓ Σ|w|
    o = relu(u / ‖w‖),  u = w x,  K = ⌈0.1 units⌉             ranked among the units at every row

Cekic, Bakiskan & Madhow 2022, arXiv:2202.13074: C is the task's cross-entropy, here to first order, ⟨∂C/∂w, w⟩, whose
slope is ∂C/∂w; the other terms are the layer's own and reach no layer below. α is 4.5e-3 in their first layer and
falls to 0.5e-3 in the sixth (a list gives one value a layer). Their blocks also divide each output by its filter's norm
and by its neighbourhood, and keep a fifth of it: that is an architecture, and no part of the rule here.
"""

from math import ceil
from typing import Annotated

from pydantic import Field, NonNegativeFloat
from torch import Tensor
from torch.linalg import vector_norm

from hebbbench import Rule


class HaH(Rule):
    strength: NonNegativeFloat = 1e-3  # α
    unlearning: NonNegativeFloat = 0.1  # λ
    active: Annotated[float, Field(gt=0, lt=1)] = 0.1  # K / units
    sparsity: NonNegativeFloat = 1e-5  # ℓ, ours: the authors' settings have 1e-3 and leave the term out

    def loss(self, post: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
        o = (post / (vector_norm(weight, dim=1) + 1e-12)).relu()
        k = ceil(self.active * o.shape[1])
        ranked = o.sort(dim=1, descending=True).values
        others = ranked[:, k:].sum() / max(1, o.shape[1] - k)
        hebbian = (ranked[:, :k].sum() / k - self.unlearning * others) / o.shape[0]
        return (grad * weight).sum() - self.strength * hebbian + self.sparsity * weight.abs().sum()
