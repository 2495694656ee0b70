"""Small networks trained together against a plain PyTorch loop over them: 32-128-128-32, tanh, SGD with momentum."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.timing import Case, take_turns
from hebbbench import registry
from hebbbench.cell import cells
from hebbbench.recipe import Recipe
from hebbbench.training.ensemble import Ensemble
from hebbbench.training.learner import Learner
from hebbbench.training.together import CHUNK

BATCHES = (256, 32, 8)
GOALS = {256: 1.8, 32: 4.5, 8: 10.0}
"""Speed-up of a network's step over the loop, on two cores."""

STEPS = 20
SIZE = 32


def speed_ups(rounds: int) -> dict[int, float]:
    """Batch size → seconds of a network's step in the loop over that in an ensemble; the median over rounds."""
    found = {}
    for batch in BATCHES:
        x, y = torch.randn(CHUNK, batch, SIZE), torch.randn(CHUNK, batch, SIZE)
        cases: dict[str, Case] = {"loop": loop(x[0].clone(), y[0].clone()), "together": together(x, y)}
        times = take_turns(cases, rounds, lambda: None)
        found[batch] = CHUNK * statistics.median(a / b for a, b in zip(times["loop"], times["together"], strict=True))
    return found


def loop(x: Tensor, y: Tensor) -> Callable[[], None]:
    """Some steps of one network, as one would write them."""
    layers = [nn.Linear(SIZE, 128, bias=False), nn.Tanh(), nn.Linear(128, 128, bias=False), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(128, SIZE, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def run() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad(set_to_none=True)
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()

    return run


def together(x: Tensor, y: Tensor) -> Callable[[], None]:
    """As many steps of an ensemble."""
    recipe = Recipe.model_validate({"provenance": "default", "optimizer": {"lr": 0.01, "momentum": 0.9}})
    protocol = registry.protocol("sre-mlp")
    planned = cells(protocol, ["bp"], list(range(CHUNK)), {"optimizer": "sgd", "decay": 0.0}, recipe)
    learners = [Learner(cell, (1, 1, SIZE), SIZE, torch.device("cpu")) for cell in planned]
    ensemble = Ensemble(learners, [cell.recipe.training for cell in planned])

    def run() -> None:
        for step in range(STEPS):
            ensemble.step(x, y, step, 1.0)

    return run
