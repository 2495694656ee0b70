"""The arithmetic of one step, counted as it runs, in units that compare across machines: forward passes.

A multiply–add is two operations, and only products count (convolutions and matrix products: all but a few percent).
For a layer with B rows, K units and D inputs one product is 2 B K D. A forward pass has one a layer; backpropagation
two more (the weight's gradient and, but for the first layer, the input's); a Hebbian outer product is one more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from hebbbench.training.counter import Counter, Pass, Tally, product_layers
from hebbbench.training.learner import Learner

SIDE = 1024
COPIED = 2**26
ON_A_GPU = 8
"""Times as large a side, and as many bytes: there a product of side 1024 is over before its launch is paid for."""
ROUNDS = 5
PASSES: tuple[Pass, ...] = ("forward", "backward", "rule")


@dataclass(frozen=True)
class LayerWork:
    """What one step does for one layer: for its output, for the gradients through it, and for its rule's update."""

    name: str
    forward: Tally
    backward: Tally
    rule: Tally


@dataclass(frozen=True)
class Work:
    """Of one batch: operations in products of one forward pass and of one whole step, and the bytes of that step.

    What a step does between its layers, and for the optimizer, is in its total and in no layer's.
    """

    forward: int
    step: int
    bytes: int
    layers: tuple[LayerWork, ...]


def count(learner: Learner, x: Tensor, labels: Tensor, number: int = 0, only: int | None = None) -> Work:
    """Take one step, and count it; the learner is changed as by any step. What several processes do is added up.

    Args:
        x: input, (N, …); labels: (N,); number: of the step; only: as in `Learner.step`.
    """
    with Counter() as step, step.layer_by_layer(learner.model, learner.plasticity.layers):
        learner.step(x, labels, number, 0.0, only)
    learner.model.eval()
    with torch.no_grad(), Counter() as forward:
        learner.model(x)
    names = list(product_layers(learner.model))
    tallies = [forward.total, step.total, *(step.tallies[name, kind] for name in names for kind in PASSES)]
    forward_pass, whole, *parts = (Tally(*pair) for pair in learner.world.sum(torch.tensor(tallies)).tolist())
    by_layer = zip(names, *(parts[at :: len(PASSES)] for at in range(len(PASSES))), strict=True)
    return Work(forward_pass.operations, whole.operations, whole.bytes, tuple(LayerWork(*own) for own in by_layer))


@cache
def ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """The best rate this process saw in a square matrix product of side 1024, on a GPU 8192, in operations a second."""
    side = SIDE * _scale(device)
    a = torch.ones(side, side, device=device, dtype=dtype)
    return 2 * side**3 / _best_seconds(lambda: a @ a, device)


@cache
def bandwidth(device: torch.device) -> float:
    """The best rate this process saw in copying 64 MiB, on a GPU 512, in bytes read and written a second."""
    copied = COPIED * _scale(device)
    source = torch.ones(copied, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * copied / _best_seconds(lambda: target.copy_(source), device)


def _scale(device: torch.device) -> int:
    return 1 if device.type == "cpu" else ON_A_GPU


def _best_seconds(function: Callable[[], Tensor], device: torch.device) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        made = function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
        del made
    return best
