"""Backpropagation: descent along the exact gradient.

    Δw = −∂L/∂w

Rumelhart, Hinton & Williams 1986. The reference row of every board: same network, head and probe as every rule.
"""

from torch import Tensor

from hebbbench import Rule


class Backprop(Rule):
    def delta(self, grad: Tensor) -> Tensor:
        return -grad
