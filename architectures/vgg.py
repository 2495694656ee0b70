"""VGG for small images: thirteen 3×3 convolutions in five groups, each group ended by a pooling that halves the sides.

    block:     conv 3×3 without bias → norm without affine → ReLU
    VGG-14:    13 blocks → linear read-out
    VGG-16:    13 blocks → 2 × (linear → ReLU → dropout) → linear read-out

Simonyan & Zisserman 2015, arXiv:1409.1556. The parameter counts of arXiv:2601.21367, Table 4 (14.71 and 33.63 million
on CIFAR-10) are those of convolutions without bias, norms without affine part and wide layers of 4096 units.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar, Literal

from torch import Tensor, nn

GROUPS = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))
"""(blocks, channels in units of the first group's) of each group."""


class VGG(nn.Module):
    """
    Args:
        input_shape: (channels, height, width); height and width a multiple of 32.
        classes: number of classes.
        depth: layers with weights: 14 has no wide layers, 16 has two.
        width: channels of the first group.
        hidden: units of each wide layer.
        dropout: behind each wide layer, the last before the read-out.
    """

    layout: ClassVar[Literal["image", "flat"]] = "image"

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        classes: int,
        depth: int = 16,
        width: int = 64,
        hidden: int = 4096,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if depth not in (14, 16):
            raise ValueError(f"depth = {depth}, expected 14 or 16")
        channels, height, wide = input_shape
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        number = 0
        for group, (blocks, multiple) in enumerate(GROUPS, start=1):
            for _ in range(blocks):
                number += 1
                convolution = nn.Conv2d(channels, multiple * width, 3, padding=1, bias=False)
                nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
                channels = multiple * width
                modules[f"conv{number}"] = convolution
                modules[f"norm{number}"] = nn.BatchNorm2d(channels, affine=False)
                modules[f"act{number}"] = nn.ReLU()
            modules[f"pool{group}"] = nn.MaxPool2d(2)
        modules["flatten"] = nn.Flatten()
        features = channels * (height // 32) * (wide // 32)
        if depth == 16:
            for number in (14, 15):
                linear = nn.Linear(features, hidden)
                nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
                nn.init.zeros_(linear.bias)
                modules[f"fc{number}"] = linear
                modules[f"act{number}"] = nn.ReLU()
                if number == 14:
                    modules["dropout14"] = nn.Dropout(dropout)
                features = hidden
        self.body = nn.Sequential(modules)
        head: OrderedDict[str, nn.Module] = OrderedDict()
        if depth == 16:
            head["dropout"] = nn.Dropout(dropout)
        head["linear"] = nn.Linear(features, classes)
        self.head = nn.Sequential(head)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))
