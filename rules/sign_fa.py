"""Sign-only with random feedback: the direction of feedback alignment, every weight moving by the same amount.

    Δw = −sign(∂L/∂w)          with W replaced by B random, drawn once, on the way back to ∂L/∂w

The control of `ghl_fa`, as `sign` is that of `ghl`: what is left of it without a Hebbian magnitude. Feedback alignment
is Lillicrap et al. 2016, Nature Communications 7:13276; signs of gradients, Bernstein et al. 2018, arXiv:1802.04434.
"""

from typing import ClassVar

from torch import Tensor

from hebbbench import Rule


class SignFeedbackAlignment(Rule):
    feedback: ClassVar = "random"

    def delta(self, grad: Tensor) -> Tensor:
        return -grad.sign()
