"""Small networks trained together against a plain PyTorch loop over them: 32-128-128-32, tanh, SGD with momentum.

As in a run, chunks of ten train side by side, one on each thread; the loop has all threads for each of its steps. On a
GPU it is one chunk of a hundred.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.timing import Case, take_turns
from hebbbench import registry
from hebbbench.cell import cells
from hebbbench.recipe import Recipe
from hebbbench.training.beside import side_by_side
from hebbbench.training.ensemble import Ensemble
from hebbbench.training.interrupt import StopRequest
from hebbbench.training.learner import Learner
from hebbbench.training.together import chunk_size

BATCHES = (256, 32, 8)
GOALS = {256: 1.8, 32: 4.5, 8: 10.0}
"""Speed-up of a network's step over the loop, on two cores."""

STEPS = 50
SIZE = 32


def speed_ups(rounds: int, threads: int, device: torch.device, wait: Callable[[], None]) -> dict[int, float]:
    """Batch size → seconds of a network's step in the loop over that in an ensemble; the median over rounds."""
    found, before = {}, torch.get_num_threads()
    torch.set_num_threads(threads)
    lanes, size = threads if device.type == "cpu" else 1, chunk_size(device)
    for batch in BATCHES:
        x, y = (torch.randn(size, batch, SIZE, device=device) for _ in range(2))
        cases: dict[str, Case] = {"loop": loop(x[0].clone(), y[0].clone()), "together": together(x, y, lanes)}
        times = take_turns(cases, rounds, wait)
        ratios = (a / b for a, b in zip(times["loop"], times["together"], strict=True))
        found[batch] = lanes * size * statistics.median(ratios)
    torch.set_num_threads(before)
    return found


def loop(x: Tensor, y: Tensor) -> Callable[[], None]:
    """Some steps of one network, as one would write them."""
    layers = [nn.Linear(SIZE, 128, bias=False), nn.Tanh(), nn.Linear(128, 128, bias=False), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(128, SIZE, bias=False)).to(x.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def run() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=True)
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()

    return run


def together(x: Tensor, y: Tensor, lanes: int) -> Callable[[], None]:
    """As many steps of as many ensembles side by side."""
    recipe = Recipe.model_validate({"provenance": "default", "optimizer": {"lr": 0.01, "momentum": 0.9}})
    protocol = registry.protocol("sre-mlp")
    (cell,) = cells(protocol, ["bp"], [0], {"optimizer": "sgd", "decay": 0.0}, recipe)

    def ensemble() -> Ensemble:
        learners = [Learner(cell, (1, 1, SIZE), SIZE, x.device) for _ in x]
        return Ensemble(learners, [cell.recipe.training] * len(learners))

    ensembles = [ensemble() for _ in range(lanes)]

    def train(ensemble: Ensemble, request: StopRequest) -> None:
        for step in range(STEPS):
            ensemble.step(x, y, step, 1.0)

    def pieces() -> Iterator[Callable[[StopRequest], None]]:
        yield from (partial(train, ensemble) for ensemble in ensembles)

    def run() -> None:
        for _ in side_by_side(pieces(), lanes, StopRequest(), x.device):
            pass

    return run
