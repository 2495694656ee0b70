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
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from hebbbench.training.learner import Learner

SIDE = 1024
ROUNDS = 5


@dataclass(frozen=True)
class Work:
    """Floating-point operations in products: of one forward pass, and of one whole step, for one batch."""

    forward: int
    step: int


class Counter(TorchDispatchMode):
    """Counts the operations of every product that runs within the context, on any device and in any direction."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        count: Callable[..., int] | None = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.operations += int(count(*args, **(kwargs or {}), out_val=out))
        return out


def count(learner: Learner, x: Tensor, labels: Tensor, number: int = 0, only: int | None = None) -> Work:
    """Take one step, and count it; the learner is changed as by any step. What several processes do is added up.

    Args:
        x: input, (N, …); labels: (N,); number: of the step; only: as in `Learner.step`.
    """
    with Counter() as step:
        learner.step(x, labels, number, 0.0, only)
    learner.model.eval()
    with torch.no_grad(), Counter() as forward:
        learner.model(x)
    both = learner.world.sum(torch.tensor([forward.operations, step.operations]))
    return Work(*both.tolist())


@cache
def ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """The best rate this process saw in a square matrix product of side 1024, in operations a second."""
    a = torch.ones(SIDE, SIDE, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        product = a @ a
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
        del product
    return 2 * SIDE**3 / best
