"""Direct random target projection: every layer is driven by the label itself, through a random matrix of its own.

    Δw_l = −⟨(B_lᵀ y* ∘ ∂h_l/∂u_l) x_lᵀ⟩       y* = one-hot(labels),  B_l random
    Δw_head = −⟨e h_Lᵀ⟩                         e = softmax(logits) − y*

Frenkel, Lefebvre & Bol 2021, arXiv:1909.01311. h_l is what the layer hands on, behind its nonlinearity and its pool.
The target stands where direct feedback alignment has the output's error, whose signs it tells: no layer waits for the
output, and none is told when an answer is right. B_l is uniform on ±1/√classes, as for `dfa`.
"""

import torch.nn.functional as F
from torch import Tensor

from hebbbench import Chain, Rule, draw_counter, uniform


class DirectRandomTargetProjection(Rule):
    def begin(self, network: Chain) -> dict[str, Tensor]:
        return {"seed": draw_counter(network.blocks[0].map.weight)}

    def step(self, network: Chain, input: Tensor, labels: Tensor, state: dict[str, Tensor]) -> Tensor:
        h, pull = input, input.new_zeros(())
        seed = state["seed"].clone()  # the same matrices at every step
        target = F.one_hot(labels, network.classes).to(input.dtype)
        for block in network.blocks:
            h = block(h.detach())
            matrix = uniform((network.classes, h[0].numel()), seed).to(h) / network.classes**0.5
            pull = pull + (h.flatten(1) * (target @ matrix)).sum()
        return pull / len(labels) + F.cross_entropy(network.head(h.detach()), labels)
