"""Equilibrium propagation: the network settles, is nudged towards and away from the answer, and compares.

    Φ(s) = Σ_l ⟨s_l, w_l s_{l−1}⟩                      s_0 = input; the same weights carry activity up and down
    s_l ← ρ(∂Φ/∂s_l − β ∂C/∂s_l),  ρ(a) = min(max(a, 0), 1)     until settled: free (β = 0), then ±β
    Δw = (∂Φ/∂w|₊β − ∂Φ/∂w|₋β) / 2β

Scellier & Bengio 2017, arXiv:1602.05179; the discrete-time form of Ernoult et al. 2019, arXiv:1905.13633; nudging both
ways and a softmax read-out outside the dynamics, C the cross-entropy of head(s_L), of Laborieux et al. 2021,
arXiv:2006.03824. ρ is the only nonlinearity and only the input is normalised: the network's own ones play no part.
"""

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from hebbbench import Chain, Rule


class EquilibriumPropagation(Rule):
    nudge: PositiveFloat = 0.5  # β
    free_steps: PositiveInt = 20
    nudged_steps: PositiveInt = 8

    def step(self, network: Chain, input: Tensor, labels: Tensor) -> Tensor:
        x = network.blocks[0].prepare(input)
        free = self.settle(network, x, self.rest(network, x), self.free_steps)
        toward = self.settle(network, x, free, self.nudged_steps, self.nudge, labels)
        away = self.settle(network, x, free, self.nudged_steps, -self.nudge, labels)
        contrast = (self.phi(network, x, away) - self.phi(network, x, toward)) / (2 * self.nudge)
        return contrast / len(labels) + F.cross_entropy(network.head(free[-1]), labels)

    def infer(self, network: Chain, input: Tensor) -> Tensor:
        x = network.blocks[0].prepare(input)
        return self.settle(network, x, self.rest(network, x), self.free_steps)[-1]

    def settle(
        self, network: Chain, x: Tensor, s: list[Tensor], steps: int, nudge: float = 0.0, labels: Tensor | None = None
    ) -> list[Tensor]:
        for _ in range(steps):
            with torch.enable_grad():
                s = [activity.detach().requires_grad_() for activity in s]
                phi = self.phi(network, x, s)
                if labels is not None:
                    phi = phi - nudge * F.cross_entropy(network.head(s[-1]), labels, reduction="sum")
                s = [pull.clamp(0, 1) for pull in torch.autograd.grad(phi, s)]
        return s

    def phi(self, network: Chain, x: Tensor, s: list[Tensor]) -> Tensor:
        drives = [block.reduce(block.map(below)) for block, below in zip(network.blocks, [x, *s[:-1]], strict=True)]
        return torch.stack([(above * drive).sum() for above, drive in zip(s, drives, strict=True)]).sum()

    def rest(self, network: Chain, x: Tensor) -> list[Tensor]:
        s = []
        for block in network.blocks:
            x = block.reduce(block.map(x)).detach().clamp(0, 1)
            s.append(x)
        return s
