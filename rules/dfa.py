"""Direct feedback alignment: every layer hears the output's error through a random matrix of its own.

    Δw = −δ xᵀ        δ = (Bᵀe) f′(u),  e = ∂L/∂logits,  B random, one for each layer and position

Nøkland 2016, arXiv:1609.01596.
"""

from typing import ClassVar

from torch import Tensor

from hebbbench import Rule


class DirectFeedbackAlignment(Rule):
    feedback: ClassVar = "direct"

    def delta(self, grad: Tensor) -> Tensor:
        return -grad
