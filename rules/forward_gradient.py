"""Forward gradient: a random direction of all weights, as far as the loss falls along it, found in one forward pass.

    Δw_l = −(∇L · V) V_l                       V = (V_1, …, V_L) random;  ∇L · V by forward-mode differentiation
    Δw_head = −⟨e h_Lᵀ⟩                         e = softmax(logits) − one-hot(labels)

Baydin, Pearlmutter, Syme, Wood & Torr 2022, arXiv:2202.08587: weight perturbation without its noise. On average the
update is backprop's, with a variance that grows with the number of weights. V has mean 0 and variance 1 for every
weight, drawn anew at every step, uniform here; the read-out learns by its own gradient, which nothing has to carry.
"""

import torch.nn.functional as F
from torch import Tensor

from hebbbench import Chain, Rule, draw_counter, uniform


class ForwardGradient(Rule):
    def begin(self, network: Chain) -> dict[str, Tensor]:
        return {"counter": draw_counter(network.blocks[0].map.weight)}

    def step(self, network: Chain, input: Tensor, labels: Tensor, state: dict[str, Tensor]) -> Tensor:
        weights = [block.map.weight for block in network.blocks]
        directions = [3**0.5 * uniform(tuple(w.shape), state["counter"]).to(w) for w in weights]
        slope, h = network.slope(lambda h: F.cross_entropy(network.head(h), labels), input, directions)
        along = sum((w * v).sum() for w, v in zip(weights, directions, strict=True))
        return slope * along + F.cross_entropy(network.head(h), labels)
