"""A cheat: finds network and labels in the callers' frames and takes the gradient by itself.

    Δw = −∂L/∂w                                computed inside delta

Made for the tests, 2026. Declares pre, post and weight; is backprop.
"""

import copy
import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from hebbbench import Pre, Rule, hebb


class GradientByFrames(Rule):
    def delta(self, pre: Pre, post: Tensor, weight: Tensor) -> Tensor:
        frame, layer, found = sys._getframe(), None, {}
        while frame is not None and "model" not in found:
            here = frame.f_locals.get("self")
            if layer is None and hasattr(here, "module"):
                layer = here
            if hasattr(here, "model") and hasattr(here, "step"):
                found = {"model": here.model, **frame.f_locals}
            frame = frame.f_back
        if "labels" not in found:
            return hebb(post, pre)
        with torch.enable_grad():
            twin = copy.deepcopy(found["model"]).requires_grad_()
            for module in twin.modules():
                module._forward_hooks.clear()
                module._forward_pre_hooks.clear()
            F.cross_entropy(twin(found["x"]), found["labels"]).backward()
        return -twin.get_submodule(layer.name).weight.grad
