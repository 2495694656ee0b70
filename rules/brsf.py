"""Batch-wise random sign-concordant feedback (brSF): signs of the weights, magnitudes drawn at every step.

    Δw = −∂L/∂w        with W replaced by |R|∘sign(W), R drawn anew at every step on the way back

Liao, Leibo & Poggio 2016, arXiv:1510.05067; in the form of Sanfiz & Akrout 2021, arXiv:2108.13446.
"""

from typing import ClassVar

from torch import Tensor

from hebbbench import Rule


class BatchwiseRandomSignFeedback(Rule):
    feedback: ClassVar = "batchwise_signs"

    def delta(self, grad: Tensor) -> Tensor:
        return -grad
