"""Uniform sign-concordant feedback (uSF): errors travel back through the signs of the weights.

    Δw = −∂L/∂w        with W replaced by s·sign(W), s the standard deviation of the first weights on the way back

Liao, Leibo & Poggio 2016, arXiv:1510.05067; in the form of Sanfiz & Akrout 2021, arXiv:2108.13446.
"""

from typing import ClassVar

from torch import Tensor

from hebbbench import Rule


class UniformSignFeedback(Rule):
    feedback: ClassVar = "uniform_signs"

    def delta(self, grad: Tensor) -> Tensor:
        return -grad
