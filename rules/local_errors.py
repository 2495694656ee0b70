"""Local errors: every layer is to tell the classes apart by itself, for a read-out of its own that never learns.

    Δw_l = −⟨(R_lᵀ e_l ∘ ∂h_l/∂u_l) x_lᵀ⟩      e_l = softmax(R_l h_l) − one-hot(labels),  R_l random
    Δw_head = −⟨e h_Lᵀ⟩                         e = softmax(logits) − one-hot(labels)

Mostafa, Ramesh & Cauwenberghs 2018, arXiv:1711.06756: the slope of Σ_l C(R_l h_l) in each layer's weight alone, a
three-factor rule whose error is the layer's own and comes back by the fixed weights that it went out by. h_l is what
the layer hands on, behind nonlinearity and pool. R_l is uniform with the standard deviation 1/√(entries of h_l).
"""

import torch.nn.functional as F
from torch import Tensor

from hebbbench import Chain, Rule, draw_counter, uniform


class LocalErrors(Rule):
    def begin(self, network: Chain) -> dict[str, Tensor]:
        return {"seed": draw_counter(network.blocks[0].map.weight)}

    def step(self, network: Chain, input: Tensor, labels: Tensor, state: dict[str, Tensor]) -> Tensor:
        h, loss = input, input.new_zeros(())
        seed = state["seed"].clone()  # the same matrices at every step
        for block in network.blocks:
            h = block(h.detach())
            readout = uniform((network.classes, h[0].numel()), seed).to(h) * (3 / h[0].numel()) ** 0.5
            loss = loss + F.cross_entropy(h.flatten(1) @ readout.T, labels)
        return loss + F.cross_entropy(network.head(h.detach()), labels)
