"""Fixed random sign-concordant feedback (frSF): signs of the weights, random magnitudes drawn once.

    Δw = −∂L/∂w        with W replaced by |R|∘sign(W), R drawn once on the way back

Liao, Leibo & Poggio 2016, arXiv:1510.05067; in the form of Sanfiz & Akrout 2021, arXiv:2108.13446.
"""

from typing import ClassVar

from torch import Tensor

from hebbbench import Rule


class FixedRandomSignFeedback(Rule):
    feedback: ClassVar = "fixed_signs"

    def delta(self, grad: Tensor) -> Tensor:
        return -grad
