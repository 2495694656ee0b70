"""PEPITA: a second forward pass on an input bent by the error; each layer learns from how its activity changed.

    Δw_l = −⟨(y_l − y′_l) x′_lᵀ⟩           first pass y on x, second pass y′ on x + F e
    Δw_head = −⟨e h′ᵀ⟩                      e = softmax(logits) − one-hot(labels) of the first pass

Dellaferrera & Kreiman 2022, arXiv:2201.11665. x′_l is what the map sees in the second pass, y_l the activity right
behind it; x is the input as the first map sees it. F is fixed, uniform on ±s √(6 / inputs). No error and no weight
travels back.
"""

from typing import ClassVar

import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from hebbbench import Chain, Rule, draw_counter, uniform


class Pepita(Rule):
    expected_failures: ClassVar[dict[str, str]] = {
        "learns": "a layer learns from the small change that F e makes: it needs more than the task's 150 steps"
    }

    scale: PositiveFloat = 0.05  # s

    def begin(self, network: Chain) -> dict[str, Tensor]:
        return {"seed": draw_counter(network.blocks[0].map.weight)}

    def step(self, network: Chain, input: Tensor, labels: Tensor, state: dict[str, Tensor]) -> Tensor:
        x = network.blocks[0].prepare(input).detach()
        _, clean, h = self.forward(network, x)
        logits = network.head(h).detach()
        error = logits.softmax(1) - F.one_hot(labels, logits.shape[1])
        drawn = uniform((logits.shape[1], x[0].numel()), state["seed"].clone()).to(error)  # the same at every step
        nudge = self.scale * (6 / x[0].numel()) ** 0.5 * error @ drawn
        u, bent, h = self.forward(network, x + nudge.view_as(x))
        changes = [(a * (y - y_bent)).sum() for a, y, y_bent in zip(u, clean, bent, strict=True)]
        return (sum(changes) + (network.head(h) * error).sum()) / len(labels)

    def forward(self, network: Chain, x: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Potentials, each a function of its own layer's weight alone; activities; the last, as the head sees it."""
        potentials, activities = [], []
        for block in network.blocks:
            seen = block.prepare(x) if activities else x
            potentials.append(block.map(seen))
            activities.append(block.fire(potentials[-1]).detach())
            x = block.reduce(activities[-1])
        return potentials, activities, x
