"""Constant: a learning signal that knows nothing and never changes: at every step weights move by one random matrix.

    Δw = A          A ~ N(0, scale² / fan_in), drawn when training begins

Koplow, Poggio & Ziyin 2025, "Emergence of Hebbian Dynamics in Regularized Non-Local Learners", Appendix B.3: "a random
matrix defined at initialization" is a force outwards, which will look Hebbian even without weight decay, as w turns
into a multiple of A. RandomNN is their signal that does not. How long A is they do not say.
"""

from typing import ClassVar

import torch
from pydantic import PositiveFloat
from torch import Tensor

from hebbbench import Rule, draw_counter


class Constant(Rule):
    expected_failures: ClassVar[dict[str, str]] = {"learns": "a control: its signal knows nothing of the task"}

    scale: PositiveFloat = 1.0

    def init(self, weight: Tensor) -> dict[str, Tensor]:
        source = torch.Generator().manual_seed(int(draw_counter(weight)))
        drawn = torch.randn(weight.shape, generator=source).to(weight)
        return {"push": self.scale * drawn / weight.shape[1] ** 0.5}

    def delta(self, state: dict[str, Tensor]) -> Tensor:
        return state["push"]
