"""What axes, metrics, curves and costs are called in a picture, with unit or symbol."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hebbbench.plan import Axes

AXES = {
    "activation": "activation function",
    "activity": "activity y",
    "batch": "batch size, samples",
    "biases": "layers with biases",
    "decay": "weight decay γ",
    "depth": "depth, layers",
    "growth": "growth, times the channels a layer",
    "l1": "L1 penalty, weight of ‖w‖₁",
    "noise": "parameter noise σ",
    "norm": "normalisation",
    "optimizer": "optimizer",
    "precision": "precision of products",
    "rate": "learning rate η",
    "readout": "read-out",
    "repeat": "pairs of hidden layers",
    "sparsity": "activity penalty, weight of mean |activity|",
    "temperature": "temperature τ",
    "width": "width, hidden units",
}
"""An axis of a protocol, by its name; what follows a comma is the unit, and stands at the axis of a picture only."""

COSTS: Mapping[str, tuple[str, float]] = {
    "train_seconds": ("training time, s", 1.0),
    "wall_seconds": ("time of the whole run, s", 1.0),
    "steps": ("training steps", 1.0),
    "samples_seen": ("samples seen in training", 1.0),
    "peak_memory_bytes": ("peak memory, MiB", 2.0**-20),
}
"""A field of a result's cost: what it is called, and by what it is multiplied."""

EQUALS = "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"
_SPLIT = "(?P<split>train|validation|test)"
_QUANTITIES = (
    (rf"probe\.{_SPLIT}\.accuracy", "accuracy, linear read-out", "%"),
    (rf"probe\.{_SPLIT}\.top5_accuracy", "top-5 accuracy, linear read-out", "%"),
    (rf"end_to_end\.{_SPLIT}\.accuracy", "accuracy of the network", "%"),
    (rf"end_to_end\.{_SPLIT}\.top5_accuracy", "top-5 accuracy of the network", "%"),
    (r"probe\.published_protocol\.test\.max", "best test accuracy of the epochs, read-out", "%"),
    (r"end_to_end\.published_protocol\.test\.max", "best test accuracy of the epochs, network", "%"),
    (rf"(end_to_end\.)?{_SPLIT}\.loss", "loss", "loss"),
    (r"norm\.(?P<layer>.+)", "norm of the weights", ""),
    (r"alignment\.(?P<layer>.+?)\.sgd", "alignment with gradient descent", "cosine"),
    (r"alignment\.(?P<layer>.+?)\.sgd\.sd", "sd over steps of alignment with gradient descent", ""),
    (r"alignment\.(?P<layer>.+?)\.sgd\.full", "alignment with gradient descent, all data", "cosine"),
    (r"alignment\.(?P<layer>.+?)\.post", "Hebbian alignment, by activity", "cosine"),
    (r"alignment\.(?P<layer>.+?)\.post\.full", "Hebbian alignment, by activity, all data", "cosine"),
    (r"alignment\.(?P<layer>.+?)\.full", "Hebbian alignment, all data", "cosine"),
    (r"alignment\.(?P<layer>.+?)", "Hebbian alignment", "cosine"),
    (r"diagnostics\.gini\.(?P<layer>.+?)(\.(?P<when>start|end))?", "Gini coefficient of mean step sizes", "0–1"),
    (r"diagnostics\.hebbian_alignment\.(?P<layer>.+?)", "alignment of update and Hebb", "cosine"),
    (r"diagnostics\.hebbian_alignment\.(?P<layer>.+?)\.post", "alignment of update and Hebb, by activity", "cosine"),
    (r"diagnostics\.gradient_alignment\.(?P<layer>.+)", "alignment of update and gradient descent", "cosine"),
    (r"diagnostics\.gradient_sign\.(?P<layer>.+)", "updates with gradient descent's sign", "share"),
    (r"diagnostics\.sign_consistency\.(?P<layer>.+)", "consistency of updates' signs", "0–1"),
    (r"diagnostics\.weight_norm\.(?P<layer>.+?)(\.mean)?", "mean norm of a unit's weights", ""),
    (r"diagnostics\.weight_norm\.(?P<layer>.+?)\.max", "largest norm of a unit's weights", ""),
    (r"diagnostics\.weight_norm\.(?P<layer>.+?)\.sd", "sd over units of their weights' norm", ""),
    (r"diagnostics\.dead\.update\.(?P<layer>.+)", "units hardly moved", "share"),
    (r"diagnostics\.dead\.weight\.(?P<layer>.+)", "units that point where they were drawn", "share"),
    (r"diagnostics\.dead\.activation\.(?P<layer>.+)", "units never active", "share"),
    (r"diagnostics\.dead\.win\.(?P<layer>.+)", "units hardly ever strongest", "share"),
    (r"diagnostics\.effective_rank\.(?P<layer>.+)", "effective rank", "dimensions"),
    (r"diagnostics\.correlation\.(?P<layer>.+)", "mean |correlation|", "0–1"),
    (r"diagnostics\.seconds", "time of the diagnostics", "s"),
)
_SPLITS = {"train": "training", "validation": "validation", "test": "test"}
_LOSSES = {"cross_entropy": "cross-entropy, nats", "mse": "mean squared error"}


@dataclass(frozen=True)
class Quantity:
    """What a metric or curve measures. `layer` is empty where it is of the whole network."""

    text: str
    layer: str = ""
    unit: str = ""

    @property
    def is_accuracy(self) -> bool:
        return self.unit == "%"

    @property
    def is_loss(self) -> bool:
        return self.unit == "loss"

    @property
    def is_signed(self) -> bool:
        return self.unit == "cosine"

    @property
    def scale(self) -> float:
        """By what a value is multiplied: accuracies are stored as fractions and drawn in percent."""
        return 100.0 if self.is_accuracy else 1.0

    def label(self, losses: frozenset[str] = frozenset(), *, layer: bool = True) -> str:
        """The label of an axis.

        Args:
            losses: of the protocols that are drawn; only one of them has a unit.
            layer: whether to name the layer.
        """
        unit = _LOSSES.get(next(iter(losses)), "") if self.is_loss and len(losses) == 1 else self.unit
        text = f"{self.text}, {self.layer}" if self.layer and layer else self.text
        if not unit or unit == "loss":
            return text
        return f"{text}, {unit}" if unit in ("%", "s") else f"{text} ({unit})"


def quantity(name: str) -> Quantity:
    """What a metric or curve of that name measures; one nobody has described is called by its name."""
    for pattern, text, unit in _QUANTITIES:
        found = re.fullmatch(pattern, name)
        if found is not None:
            parts = found.groupdict()
            split = f"{_SPLITS[parts['split']]} " if parts.get("split") else ""
            when = f", {parts['when']}" if parts.get("when") else ""
            return Quantity(f"{split}{text}{when}", parts.get("layer") or "", unit)
    return Quantity(name)


def epochs(curve: str) -> str:
    """The x of a curve: a read-out has epochs of its own."""
    return "read-out epochs" if curve.startswith("probe.") else "training epochs"


def axis_label(name: str) -> str:
    """An axis of a protocol at the axis of a picture, with its unit."""
    return AXES.get(name, name)


def point_text(axes: Axes) -> str:
    """Axis values as 'name = value, name = value', by their readable names; a value is not torn from its name."""
    names = {name: AXES.get(name, name).partition(",")[0].replace(" ", "\N{NO-BREAK SPACE}") for name in axes}
    return ", ".join(f"{names[name]}{EQUALS}{value_text(value)}" for name, value in axes.items())


def value_text(value: object) -> str:
    """An axis value: numbers as short as they are exact enough."""
    return f"{value:g}" if isinstance(value, float) else str(value)
