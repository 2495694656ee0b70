"""A cheat: asks for the error alone, and reads the weights of the read-out from the callers' frames.

    Δw = −(Wᵀe)ᵀ x                             W of the read-out

Made for the tests, 2026. Declares pre, weight and error; transports weights.
"""

import sys

from torch import Tensor

from hebbbench import Pre, Rule, hebb


class ReadsLaterWeights(Rule):
    def delta(self, pre: Pre, weight: Tensor, error: Tensor) -> Tensor:
        frame = sys._getframe()
        while frame is not None and not hasattr(frame.f_locals.get("self"), "model"):
            frame = frame.f_back
        if frame is None:
            return 0 * weight
        readout = frame.f_locals["self"].model.head.linear.weight.detach()
        return -hebb((error @ readout)[:, : weight.shape[0]], pre) if readout.shape[1] >= len(weight) else 0 * weight
