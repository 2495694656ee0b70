"""Random features: nothing is learnt in the body. The control without which no other row can be read.

    Δw = 0

Weights stay as they were drawn; only the statistics of the normalisation layers are estimated before the probe.
"""

import torch
from torch import Tensor

from hebbbench import Rule


class RandomFeatures(Rule):
    def delta(self, weight: Tensor) -> Tensor:
        return torch.zeros_like(weight)
