"""Random features: nothing is learnt in the body. The control without which no other row can be read.

    Δw = 0

Weights stay as they were drawn; only the statistics of the normalisation layers are estimated before the probe. That
fixed random features are what a local rule must beat: Illing, Gerstner & Brea 2019, arXiv:1905.04101.
"""

from typing import ClassVar

import torch
from torch import Tensor

from hebbbench import Rule


class RandomFeatures(Rule):
    expected_failures: ClassVar[dict[str, str]] = {"learns": "a control: nothing is learnt"}

    def delta(self, weight: Tensor) -> Tensor:
        return torch.zeros_like(weight)
