"""Feedback alignment: errors travel back through fixed random weights.

    Δw = −∂L/∂w        with W replaced by B random, drawn once on the way back

Lillicrap, Cownden, Tweed & Akerman 2016, Nature Communications 7:13276.
"""

from typing import ClassVar

from torch import Tensor

from hebbbench import Rule


class FeedbackAlignment(Rule):
    feedback: ClassVar = "random"

    def delta(self, grad: Tensor) -> Tensor:
        return -grad
