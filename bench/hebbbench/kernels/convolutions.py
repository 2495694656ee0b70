"""Convolutions with a mirrored border, padded where their input lies.

torch's library makes a copy of the input in another layout, pads that, and copies it back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from hebbbench.kernels import in_use, product_dtype
from hebbbench.kernels.padding import reflect_pad


def quicken(model: nn.Module) -> None:
    """Have a network's mirrored convolutions go that way. The module, its state and its hooks stay what they are."""
    for module in model.modules():
        if type(module) is nn.Conv2d and module.padding_mode == "reflect" and not isinstance(module.padding, str):
            module.forward = partial(_convolved, module, module.forward)  # type: ignore[method-assign]


def _convolved(layer: nn.Conv2d, usual: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not in_use(x.device):
        return usual(x)
    high, wide = int(layer.padding[0]), int(layer.padding[1])
    padded = reflect_pad(x, (wide, wide, high, high), product_dtype(x))
    settings: tuple[Any, ...] = (layer.stride, 0, layer.dilation, layer.groups)
    return F.conv2d(padded, layer.weight, layer.bias, *settings)
