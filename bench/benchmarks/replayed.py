"""Steps recorded as CUDA graphs against the same steps taken one operation at a time, where launches decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.steps import numbered
from benchmarks.timing import at_once, ratio, repeated, take_turns
from hebbbench import registry
from hebbbench.cell import cells
from hebbbench.data.spec import dataset_spec
from hebbbench.training.learner import Learner
from hebbbench.training.recording import CudaRecorder
from hebbbench.training.replay import Replay


@dataclass(frozen=True)
class Small:
    """A protocol's network under a rule, at a batch size; `goal` is the speed-up that replaying is to give."""

    protocol: str
    rule: str
    batch: int
    goal: float | None = None


SMALL = {
    "SoftHebb on DeepHebb, batch 10": Small("cifar10-deephebb", "softhebb", 10, 5.0),
    "an MNIST-size network, bp, batch 64": Small("mnist-mlp", "bp", 64),
    "an MNIST-size network, SoftHebb, batch 64": Small("mnist-mlp", "softhebb", 64),
}


def speed_ups(rounds: int, device: torch.device, wait: Callable[[], None]) -> dict[str, float | str]:
    """Case → seconds of a step over those of a replayed one, the median over rounds; why not, where it is not."""
    found: dict[str, float | str] = {}
    for name, small in SMALL.items():
        said: list[str] = []
        one, other = _learner(small, device), _learner(small, device)
        replay = Replay(other, CudaRecorder(device), said.append)
        x, labels = _batch(small, one)
        steps = {"eager": one.step, "replayed": replay.step}
        cases = {way: repeated(numbered(step, x, labels), at_once(device)) for way, step in steps.items()}
        times = take_turns(cases, rounds, wait)
        found[name] = said[0].strip() if said else ratio(times, "eager", "replayed")
    return found


def _learner(small: Small, device: torch.device) -> Learner:
    (cell,) = cells(registry.protocol(small.protocol), [small.rule], [0], {})
    data = dataset_spec(cell.work.data.dataset)
    return Learner(cell, data.shape, data.classes, device)


def _batch(small: Small, learner: Learner) -> tuple[Tensor, Tensor]:
    height, width, channels = dataset_spec(registry.protocol(small.protocol).data.dataset).shape
    x = torch.randn(small.batch, channels, height, width, device=learner.device)
    x = x.contiguous(memory_format=torch.channels_last) if learner.model.layout == "image" else x.flatten(1)
    return x, torch.randint(10, (small.batch,), device=learner.device)
