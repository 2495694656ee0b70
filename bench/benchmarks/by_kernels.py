"""Steps on a GPU by kernels of our own against those by torch's operations, and how far their updates differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from benchmarks.steps import learner, numbered
from benchmarks.timing import at_once, ratio, repeated, take_turns
from hebbbench import kernels
from hebbbench.training.recording import CudaRecorder
from hebbbench.training.replay import Replay

CASES = (
    ("deephebb", "bp"),
    ("deephebb", "ghl"),
    ("deephebb", "softhebb"),
    ("fasthebb", "bp"),
    ("fasthebb", "swta_fh"),
)
PRECISIONS = ("float32", "bfloat16")


def speed_ups(rounds: int, x: Tensor, labels: Tensor, wait: Callable[[], None]) -> dict[str, dict[str, float]]:
    """Case → `times`: a step by torch's operations over one by kernels, both replayed; `distance`: see there."""
    found = {}
    for network, rule in CASES:
        for precision in PRECISIONS:
            steps = {}
            for way in ("torch", "kernels"):
                with _without_kernels(way == "torch"):
                    replay = Replay(learner(network, rule, precision, x.device), CudaRecorder(x.device), print)
                    steps[way] = repeated(numbered(replay.step, x, labels), at_once(x.device))
                    steps[way]()  # recorded here; what is replayed later needs no switch
            times = take_turns(steps, rounds, wait)
            found[f"{network}, {rule}, {precision}"] = {
                "times": ratio(times, "torch", "kernels"),
                "distance": distance(network, rule, precision, x, labels),
            }
    return found


def distance(network: str, rule: str, precision: str, x: Tensor, labels: Tensor) -> float:
    """‖a − b‖ / ‖a‖ of a first update by torch's operations, a, and by kernels, b: the most of a plastic weight."""
    updates = []
    for way in ("torch", "kernels"):
        with _without_kernels(way == "torch"):
            own = learner(network, rule, precision, x.device)
            own.prepare(1)
            own.find_update(x, labels)
            updates.append([weight.grad.double() for weight in own.plasticity.weights() if weight.grad is not None])
    return max(((a - b).norm() / a.norm()).item() for a, b in zip(*updates, strict=True))


@contextmanager
def _without_kernels(off: bool) -> Iterator[None]:
    before = kernels.available
    if off:
        kernels.available = _nowhere
    try:
        yield
    finally:
        kernels.available = before


def _nowhere(device: torch.device) -> bool:
    return False
