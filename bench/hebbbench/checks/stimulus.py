"""One layer shown one batch: the rule's update with every signal at hand, without a network around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hebbbench.checks.network import CLASSES, INPUTS
from hebbbench.plasticity.layer import PlasticLayer
from hebbbench.plasticity.rule import Rule
from hebbbench.plasticity.signals import LinearPre, weight_rows
from hebbbench.rng import seed_torch


@dataclass(frozen=True)
class Geometry:
    """A convolution."""

    kernel: int
    stride: int = 1
    padding: int = 0
    mode: Literal["zeros", "reflect"] = "zeros"

    def __str__(self) -> str:
        return f"kernel {self.kernel}, stride {self.stride}, padding {self.padding} ({self.mode})"


GEOMETRIES = (
    Geometry(1),
    Geometry(3, padding=1),
    Geometry(3, stride=2, padding=1),
    Geometry(2, stride=3),
    Geometry(3, padding=1, mode="reflect"),
)


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers that every dtype draws alike."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def outside_signals(weight: Tensor, samples: int) -> dict[str, Tensor]:
    """What a layer cannot make itself: grad (out, in), error (N, classes), labels (N,) and input (N, features)."""
    labels = torch.arange(samples) % CLASSES
    scores = gaussian(samples, CLASSES, seed=5, dtype=weight.dtype).softmax(1)
    return {
        "grad": gaussian(*weight.shape, seed=6, dtype=weight.dtype),
        "error": scores - F.one_hot(labels, CLASSES).to(weight.dtype),
        "labels": labels,
        "input": gaussian(samples, INPUTS, seed=8, dtype=weight.dtype),
    }


@torch.no_grad()
def respond(rule: Rule, module: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
    """The rule's update through the harness's own layer, as rows (out, in).

    Args:
        x: (N, in), or (N, channels, height, width) for a convolution.
    """
    layer = PlasticLayer("layer", module, rule)
    layer.observe(x, module(x))
    seed_torch(0)
    layer.learn(**outside_signals(module.weight.detach(), len(x)))
    gradient = module.weight.grad
    module.weight.grad = None
    return weight_rows(-gradient) if gradient is not None else torch.zeros(0)


@torch.no_grad()
def equation(rule: Rule, rows: Tensor, weight: Tensor, outside: dict[str, Tensor]) -> Tensor:
    """The rule's `delta` on dense rows, with no harness between: rows (B, in), weight (out, in) → (out, in)."""
    signals: dict[str, Any] = {
        "pre": LinearPre(rows.clone()),
        "post": rows @ weight.T,
        "weight": weight.clone(),
        "state": rule.init(weight.clone()),
        **{name: value.clone() for name, value in outside.items()},
    }
    seed_torch(0)
    return rule.delta(**{name: signals[name] for name in rule.signals})


def convolution(geometry: Geometry, channels: int = 2, units: int = 6) -> nn.Conv2d:
    """A float64 convolution with reproducible weights."""
    layer = nn.Conv2d(
        channels,
        units,
        geometry.kernel,
        stride=geometry.stride,
        padding=geometry.padding,
        padding_mode=geometry.mode,
        bias=False,
        dtype=torch.float64,
    )
    with torch.no_grad():
        layer.weight.copy_(gaussian(*layer.weight.shape, seed=7))
    return layer


def unfolded(x: Tensor, geometry: Geometry) -> Tensor:
    """The patches (B, kernel rows × kernel columns × channels) of images (N, channels, height, width)."""
    side = geometry.padding
    mode = "constant" if geometry.mode == "zeros" else geometry.mode
    padded = F.pad(x, [side] * 4, mode=mode) if side else x
    windows = padded.unfold(2, geometry.kernel, geometry.stride).unfold(3, geometry.kernel, geometry.stride)
    return windows.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(0, 2)
