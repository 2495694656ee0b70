"""DeepHebb: a few widening convolutions, each normalised first and pooled last (SoftHebb's and GHL's CIFAR network).

    block i:   BatchNorm without affine → pad → conv without bias → activation → pool
    read-out:  flatten → dropout → linear

Journé et al. 2023, arXiv:2209.11883 (Triangle, reflect padding); arXiv:2601.21367 (ReLU, zero padding). At full width
96, 384, 1536 channels: 7 200 + 331 776 + 5 308 416 convolution weights, and 245 770 in the read-out for 10 classes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor, nn

POOLS: dict[str, Callable[[], nn.Module]] = {
    "max": partial(nn.MaxPool2d, 4, 2, 1),
    "avg": partial(nn.AvgPool2d, 2),
    "avg4": partial(nn.AvgPool2d, 4, 2, 1),
}


class Triangle(nn.Module):
    """relu(u − mean over channels)^power, at each position. Coates, Lee & Ng 2011; the power is SoftHebb's."""

    def __init__(self, power: float) -> None:
        super().__init__()
        self.power = power

    def forward(self, u: Tensor) -> Tensor:
        y = (u - u.mean(dim=1, keepdim=True)).relu_()  # in place in the difference, which nobody else reads
        return y if self.power == 1 else y.pow(self.power)

    def extra_repr(self) -> str:
        return f"power={self.power}"


class Power(nn.Module):
    """y^power of what a maximum was taken over.

    A positive power of y ≥ 0 keeps the order, so max(y)^power is max(y^power), and behind the pool there is a quarter
    as much to raise.
    """

    def __init__(self, power: float) -> None:
        super().__init__()
        self.power = power

    def forward(self, y: Tensor) -> Tensor:
        return y.pow(self.power)

    def extra_repr(self) -> str:
        return f"power={self.power}"


class DeepHebb(nn.Module):
    """
    Args:
        input_shape: (channels, height, width); height and width a multiple of 8.
        classes: number of classes.
        widths: channels of each block.
        kernels: kernel size of each block.
        activation: relu, or triangle with `powers`.
        padding: zeros or reflect.
        pools: max or avg4 (both 4×4, stride 2, padding 1) or avg (2×2, stride 2), for each block.
        dropout: before the read-out.
        depth: how many of the blocks are built, from the first; all of them if none.
        growth: if given, each block has this many times the channels of the one before, in place of `widths` behind
            the first.
        mean: the read-out sees each channel's mean over positions, in place of all positions.
    """

    layout: ClassVar[Literal["image", "flat"]] = "image"

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        classes: int,
        widths: tuple[int, ...] = (96, 384, 1536),
        kernels: tuple[int, ...] = (5, 3, 3),
        activation: Literal["relu", "triangle"] = "relu",
        powers: tuple[float, ...] = (0.7, 1.4, 1.0),
        padding: Literal["zeros", "reflect"] = "zeros",
        pools: tuple[Literal["max", "avg", "avg4"], ...] = ("max", "max", "avg"),
        dropout: float = 0.5,
        depth: int | None = None,
        growth: int | None = None,
        mean: bool = False,
    ) -> None:
        super().__init__()
        if depth is not None and not 1 <= depth <= len(widths):
            raise ValueError(f"depth = {depth}, expected 1 to {len(widths)}, the number of widths")
        if growth is not None:
            widths = tuple(widths[0] * growth**i for i in range(len(widths)))
        channels, height, width = input_shape
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        blocks = list(zip(widths, kernels, powers, pools, strict=True))[:depth]
        for i, (units, kernel, power, pool) in enumerate(blocks, start=1):
            convolution = nn.Conv2d(channels, units, kernel, padding=kernel // 2, padding_mode=padding, bias=False)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            modules[f"norm{i}"] = nn.BatchNorm2d(channels, affine=False)
            modules[f"conv{i}"] = convolution
            behind = activation == "triangle" and pool == "max" and power > 0 and power != 1
            modules[f"act{i}"] = nn.ReLU() if activation == "relu" else Triangle(1.0 if behind else power)
            modules[f"pool{i}"] = POOLS[pool]()
            if behind:
                modules[f"power{i}"] = Power(power)
            channels, height, width = units, height // 2, width // 2
        if mean:
            modules["mean"] = nn.AdaptiveAvgPool2d(1)
            height = width = 1
        modules["flatten"] = nn.Flatten()
        self.body = nn.Sequential(modules)
        self.head = nn.Sequential(
            OrderedDict(dropout=nn.Dropout(dropout), linear=nn.Linear(channels * height * width, classes))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))
