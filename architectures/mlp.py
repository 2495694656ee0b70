"""Multi-layer perceptron of any widths: norm → linear without bias → activation, then a linear read-out."""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar, Literal

from torch import Tensor, nn


class Triangle(nn.Module):
    """relu(u − mean over units). Coates, Lee & Ng 2011."""

    def forward(self, u: Tensor) -> Tensor:
        return (u - u.mean(dim=1, keepdim=True)).relu()


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "triangle": Triangle,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "linear": nn.Identity,
}


class MLP(nn.Module):
    """
    Args:
        input_shape: (channels, height, width); the input arrives flattened.
        classes: number of classes.
        widths: units of each hidden layer; a single number is one hidden layer.
        repeat: how often that sequence of hidden layers stands there, one behind the other.
        norm: before each hidden layer: batch (without affine), layer (without affine), or none.
        activation: relu, tanh, triangle, sigmoid, gelu or linear. What the next layer and the read-out see; a rule's
            own y is the rule's.
        dropout: before the read-out.
        head_norm: before the read-out and its dropout: layer (without affine), or none.
        draw: of the hidden weights: kaiming (normal, with the activation's gain), or pytorch, as its linear layers
            draw themselves (uniform on ±1/√fan_in). The read-out is drawn as pytorch does.
        biases: in every layer, in the read-out alone (head), or in none.
    """

    layout: ClassVar[Literal["image", "flat"]] = "flat"

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        classes: int,
        widths: tuple[int, ...] | int = (256, 256),
        repeat: int = 1,
        norm: Literal["batch", "layer", "none"] = "batch",
        activation: Literal["relu", "tanh", "triangle", "sigmoid", "gelu", "linear"] = "relu",
        dropout: float = 0.0,
        head_norm: Literal["layer", "none"] = "none",
        draw: Literal["kaiming", "pytorch"] = "kaiming",
        biases: Literal["all", "head", "none"] = "head",
    ) -> None:
        super().__init__()
        features = input_shape[0] * input_shape[1] * input_shape[2]
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        hidden = (widths,) if isinstance(widths, int) else tuple(widths)
        for i, units in enumerate(hidden * repeat, start=1):
            if norm == "batch":
                modules[f"norm{i}"] = nn.BatchNorm1d(features, affine=False)
            elif norm == "layer":
                modules[f"norm{i}"] = nn.LayerNorm(features, elementwise_affine=False)
            linear = nn.Linear(features, units, bias=biases == "all")
            if draw == "kaiming":
                gain = activation if activation in ("tanh", "sigmoid", "linear") else "relu"
                nn.init.kaiming_normal_(linear.weight, nonlinearity=gain)
            modules[f"fc{i}"] = linear
            modules[f"act{i}"] = ACTIVATIONS[activation]()
            features = units
        self.body = nn.Sequential(modules)
        head: OrderedDict[str, nn.Module] = OrderedDict()
        if head_norm == "layer":
            head["norm"] = nn.LayerNorm(features, elementwise_affine=False)
        head |= {"dropout": nn.Dropout(dropout), "linear": nn.Linear(features, classes, bias=biases != "none")}
        self.head = nn.Sequential(head)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))
