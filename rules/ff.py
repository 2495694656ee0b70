"""Forward-forward: each layer is to respond strongly to an image with its own label, weakly to one with another.

    L_l = softplus(θ − G(y_l⁺)) + softplus(G(y_l⁻) − θ)      G(y) = mean of y² over the layer's entries
    Δw_l = −⟨∂L_l/∂w_l⟩                                      y_l = f(w_l x), x at unit root mean square

Hinton 2022, arXiv:2212.13345. Positive pass: the image with its label written, one-hot, over the input's first entries;
negative pass: with another label, drawn anew at every step. Lengths are divided out between layers, so that no layer
can pass its goodness on; the network's own inner normalisations play no part. Features and read-out see a third
pass with a neutral label, 1/classes everywhere, as in the paper's one-pass classifier.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from hebbbench import Chain, Rule, draw_counter, uniform


class ForwardForward(Rule):
    expected_failures: ClassVar[dict[str, str]] = {
        "sample-order": "a negative label is drawn for each place in the batch"
    }

    threshold: PositiveFloat = 2.0  # θ

    def begin(self, network: Chain) -> dict[str, Tensor]:
        return {"counter": draw_counter(network.blocks[0].map.weight)}

    def step(self, network: Chain, input: Tensor, labels: Tensor, state: dict[str, Tensor]) -> Tensor:
        h = self.infer(network, input)
        logits = network.head(h)
        classes = logits.shape[1]
        drawn = (uniform((len(labels),), state["counter"]) + 1) / 2  # in [0, 1]
        other = (labels + 1 + (drawn * (classes - 1)).long().clamp(max=classes - 2)) % classes
        good = self.responses(network, input, F.one_hot(labels, classes))
        bad = self.responses(network, input, F.one_hot(other, classes))
        contrast = [
            F.softplus(self.threshold - goodness(y)) + F.softplus(goodness(y_bad) - self.threshold)
            for y, y_bad in zip(good, bad, strict=True)
        ]
        return torch.stack(contrast).sum(0).mean() + F.cross_entropy(logits, labels)

    def infer(self, network: Chain, input: Tensor) -> Tensor:
        classes = network.classes
        neutral = torch.full((len(input), classes), 1 / classes, dtype=input.dtype)
        return network.blocks[-1].reduce(self.responses(network, input, neutral)[-1]).detach()

    def responses(self, network: Chain, input: Tensor, told: Tensor) -> list[Tensor]:
        """y of each layer, a function of its own weight alone."""
        x = network.blocks[0].prepare(input).flatten(1).clone()
        x[:, : told.shape[1]] = told.to(x)
        h = x.view_as(input)
        y = []
        for block in network.blocks:
            y.append(block.fire(block.map(unit_length(h.detach()))))
            h = block.reduce(y[-1])
        return y


def goodness(y: Tensor) -> Tensor:
    return y.flatten(1).square().mean(1)


def unit_length(h: Tensor) -> Tensor:
    rows = h.flatten(1)
    return (rows / (rows.square().mean(1, keepdim=True).sqrt() + 1e-8)).view_as(h)
