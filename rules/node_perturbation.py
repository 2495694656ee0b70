"""Node perturbation: every unit is shaken, and keeps what made the whole network's loss smaller.

    Δw_l = −⟨(L′ − L) ξ_l x′_lᵀ⟩ / σ²          first pass: loss L; second pass: u′_l = w_l x′_l + ξ_l, loss L′
    Δw_head = −⟨e h_Lᵀ⟩                         e = softmax(logits) − one-hot(labels) of the first pass

Williams 1992, Machine Learning 8:229, with the quiet pass as baseline; Werfel, Xie & Seung 2005, Neural Computation
17:2699. ξ has mean 0 and standard deviation σ, drawn anew for every unit, position and sample, uniform here. One number
a sample comes back, its loss; on average the update is backprop's, with a variance that grows with the number of units
(under a batch norm, the part of it by which a sample changes its own loss: what it does to others' is not counted).
"""

from typing import ClassVar

import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from hebbbench import Chain, Rule, draw_counter, uniform


class NodePerturbation(Rule):
    expected_failures: ClassVar[dict[str, str]] = {"sample-order": "noise is drawn for each place in the batch"}

    noise: PositiveFloat = 0.01  # σ

    def begin(self, network: Chain) -> dict[str, Tensor]:
        return {"counter": draw_counter(network.blocks[0].map.weight)}

    def step(self, network: Chain, input: Tensor, labels: Tensor, state: dict[str, Tensor]) -> Tensor:
        quiet = network.head(network.forward(input)[-1])
        potentials, shakes, h = [], [], input
        for block in network.blocks:
            potentials.append(block.potential(h.detach()))
            u = potentials[-1].detach()
            shakes.append(self.noise * 3**0.5 * uniform(tuple(u.shape), state["counter"]).to(u))
            h = block.reduce(block.fire(u + shakes[-1]))
        before, after = (F.cross_entropy(o, labels, reduction="none") for o in (quiet, network.head(h)))
        blame = (after - before).detach() / self.noise**2
        felt = sum((u * shake).flatten(1).sum(1) for u, shake in zip(potentials, shakes, strict=True))
        return (blame * felt).mean() + before.mean()
