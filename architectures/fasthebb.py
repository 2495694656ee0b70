"""FastHebb: four unpadded convolutions and a wide fully connected layer (Lagani's network as GHL's code has it).

    conv 5×5 → ReLU → max 2 → norm; conv 3×3 → ReLU → norm; conv 3×3 → ReLU → max 2 → norm; conv 3×3 → ReLU → norm;
    flatten → linear 4096 → ReLU → norm → dropout → linear

On ImageNet, at 210 pixels, eight convolutions: 7×7 with max 3, then 3×3, with max 2 behind the third, fifth, seventh.
arXiv:2207.03172; arXiv:2601.21367. Batch norms behind convolutions have no affine part, the one behind the
fully connected layer has. About 10.3 million parameters, 92 % of them in the fully connected layer.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar, Literal

from torch import Tensor, nn


class FastHebb(nn.Module):
    """
    Args:
        input_shape: (channels, height, width), at least 24 pixels a side for four convolutions.
        classes: number of classes.
        widths: channels of each convolution.
        kernels: kernel size of each convolution.
        pools: side of the max pooling behind each convolution; 1 is none.
        hidden: units of the fully connected layer.
        dropout: before the read-out.
    """

    layout: ClassVar[Literal["image", "flat"]] = "image"

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        classes: int,
        widths: tuple[int, ...] = (96, 128, 192, 256),
        kernels: tuple[int, ...] = (5, 3, 3, 3),
        pools: tuple[int, ...] = (2, 1, 2, 1),
        hidden: int = 4096,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        for i, (units, kernel, pool) in enumerate(zip(widths, kernels, pools, strict=True), start=1):
            convolution = nn.Conv2d(channels, units, kernel, bias=False)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            modules[f"conv{i}"] = convolution
            modules[f"act{i}"] = nn.ReLU()
            if pool > 1:
                modules[f"pool{i}"] = nn.MaxPool2d(pool)
            modules[f"norm{i}"] = nn.BatchNorm2d(units, affine=False)
            channels, height, width = units, (height - kernel + 1) // pool, (width - kernel + 1) // pool
        modules["flatten"] = nn.Flatten()
        last = len(widths) + 1
        modules[f"fc{last}"] = nn.Linear(channels * height * width, hidden)
        modules[f"act{last}"] = nn.ReLU()
        modules[f"norm{last}"] = nn.BatchNorm1d(hidden)
        self.body = nn.Sequential(modules)
        self.head = nn.Sequential(OrderedDict(dropout=nn.Dropout(dropout), linear=nn.Linear(hidden, classes)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))
