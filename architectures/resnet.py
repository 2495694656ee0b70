"""Residual network for small images, with shortcuts that have no weights (He et al.'s CIFAR network, option A).

    conv 3×3 → norm → ReLU → three stages of (depth − 2)/6 blocks → mean over positions → linear read-out
    block:  y = ReLU(x' + norm(conv(ReLU(norm(conv(x))))))        x' = x, or every second row and column of x with
                                                                  channels of zeros added where a stage begins

He et al. 2016, arXiv:1512.03385. Norms have no affine part and convolutions no bias, as the parameter counts of
arXiv:2601.21367, Table 4 imply: depth 20, 32, 44, 56, 110, 1202 give 0.27, 0.46, 0.66, 0.85, 1.72, 19.33 million.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn


def _convolution(channels: int, units: int, stride: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, units, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return layer


class _Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels: int, units: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(channels, units, stride)
        self.norm1 = nn.BatchNorm2d(units, affine=False)
        self.act1 = nn.ReLU()
        self.conv2 = _convolution(units, units, 1)
        self.norm2 = nn.BatchNorm2d(units, affine=False)
        self.act2 = nn.ReLU()
        self.stride = stride
        self.added = units - channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        return self.act2(y + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2)) if self.added else x


class ResNet(nn.Module):
    """
    Args:
        input_shape: (channels, height, width).
        classes: number of classes.
        depth: layers with weights, 6 n + 2 for n blocks a stage.
        width: channels of the first stage; the second and third have twice and four times as many.
    """

    layout: ClassVar[Literal["image", "flat"]] = "image"

    def __init__(self, input_shape: tuple[int, int, int], classes: int, depth: int = 20, width: int = 16) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth = {depth}, expected 8, 14, 20 or another 6 n + 2")
        modules: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=_convolution(input_shape[0], width, 1), norm1=nn.BatchNorm2d(width, affine=False), act1=nn.ReLU()
        )
        channels = width
        for stage in (1, 2, 3):
            units = width * 2 ** (stage - 1)
            members: OrderedDict[str, nn.Module] = OrderedDict()
            for block in range(1, blocks + 1):
                members[f"block{block}"] = _Block(channels, units, 2 if block == 1 and stage > 1 else 1)
                channels = units
            modules[f"stage{stage}"] = nn.Sequential(members)
        modules["pool"] = nn.AdaptiveAvgPool2d(1)
        modules["flatten"] = nn.Flatten()
        self.body = nn.Sequential(modules)
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def segments(self) -> list[nn.Module]:
        """The blocks, in order: what can be computed anew in the backward pass, one at a time."""
        return [module for module in self.modules() if isinstance(module, _Block)]
