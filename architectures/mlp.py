"""Multi-layer perceptron of any widths: norm → linear without bias → activation, then a linear read-out."""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar, Literal

from torch import Tensor, nn


class MLP(nn.Module):
    """
    Args:
        input_shape: (channels, height, width); the input arrives flattened.
        classes: number of classes.
        widths: units of each hidden layer.
        norm: before each hidden layer: batch (without affine), layer (without affine), or none.
        activation: relu or tanh.
        dropout: before the read-out.
    """

    layout: ClassVar[Literal["image", "flat"]] = "flat"

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        classes: int,
        widths: tuple[int, ...] = (256, 256),
        norm: Literal["batch", "layer", "none"] = "batch",
        activation: Literal["relu", "tanh"] = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        features = input_shape[0] * input_shape[1] * input_shape[2]
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        for i, units in enumerate(widths, start=1):
            if norm == "batch":
                modules[f"norm{i}"] = nn.BatchNorm1d(features, affine=False)
            elif norm == "layer":
                modules[f"norm{i}"] = nn.LayerNorm(features, elementwise_affine=False)
            linear = nn.Linear(features, units, bias=False)
            nn.init.kaiming_normal_(linear.weight, nonlinearity=activation)
            modules[f"fc{i}"] = linear
            modules[f"act{i}"] = nn.ReLU() if activation == "relu" else nn.Tanh()
            features = units
        self.body = nn.Sequential(modules)
        self.head = nn.Sequential(OrderedDict(dropout=nn.Dropout(dropout), linear=nn.Linear(features, classes)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))
