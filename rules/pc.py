"""Predictive coding: activity settles until each layer explains the next, then each weight heals its layer's error.

    F  = ½ Σ_l ‖ε_l‖² + C          ε_l = h_l − f_l(h_{l−1}),  C the cross-entropy of head(h_L)
    h ← h − r ∂F/∂h                T times, from the forward pass; the input stays
    Δw_l = −⟨∂F/∂w_l⟩ = ⟨(ε_l f′) x⟩    x what the map sees

Rao & Ballard 1999; Whittington & Bogacz 2017; the settings' range from Pinchetti et al., arXiv:2407.01163. Here the
read-out's own term is the cross-entropy, so nothing but the labels is clamped there. ⟨·⟩ is the mean over samples.
"""

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from hebbbench import Chain, Rule


class PredictiveCoding(Rule):
    steps: PositiveInt = 20  # T
    rate: PositiveFloat = 0.1  # r

    def step(self, network: Chain, input: Tensor, labels: Tensor) -> Tensor:
        h = network.forward(input)[1:]
        for _ in range(self.steps):
            h = [activity.requires_grad_() for activity in h]
            slopes = torch.autograd.grad(self.energy(network, input, h, labels), h)
            h = [(activity - self.rate * slope).detach() for activity, slope in zip(h, slopes, strict=True)]
        return self.energy(network, input, h, labels) / len(labels)

    def energy(self, network: Chain, input: Tensor, h: list[Tensor], labels: Tensor) -> Tensor:
        predicted = [block(below) for block, below in zip(network.blocks, [input, *h[:-1]], strict=True)]
        errors = sum(((above - guess) ** 2).sum() for above, guess in zip(h, predicted, strict=True))
        return errors / 2 + F.cross_entropy(network.head(h[-1]), labels, reduction="sum")
