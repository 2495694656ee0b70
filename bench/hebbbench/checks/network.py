"""The small perceptron on which rules are checked, made and trained by the harness as any other cell is.

x (N, inputs) → fc1 → tanh → fc2 → tanh → … → head, without normalisation
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hebbbench.cell import Cell
from hebbbench.protocol import Protocol
from hebbbench.recipe import Recipe, resolve
from hebbbench.training.learner import Learner
from hebbbench.world import ALONE, World

INPUTS = 30
WIDTHS = (40, 24, 24)
CLASSES = 3
SAMPLES = 5


def toy_cell(rule: str, hyperparameters: dict[str, Any], widths: tuple[int, ...], rate: float, seed: int) -> Cell:
    """A cell on the perceptron of these widths, with plain SGD at one rate everywhere."""
    protocol = Protocol.model_validate(
        {
            "name": "check",
            "version": 1,
            "title": "Conformance",
            "description": "The network of `hebbbench check`.",
            "data": {"dataset": "digits", "validation": 0, "mean": [0.5], "std": [0.5]},
            "architecture": {
                "name": "mlp",
                "options": {"widths": list(widths), "norm": "none", "activation": "tanh"},
            },
            "plastic": ["fc*"],
            "training": {"epochs": 1, "batch_size": SAMPLES, "optimizer": {"lr": rate}},
            "budget": {"epochs": 1},
            "seeds": [0],
            "probe": {"epochs": 1, "batch_size": 1, "lr": 1.0, "statistics_samples": 0},
            "chance": 0.1,
        }
    )
    recipe = Recipe(provenance="default", hyperparameters=hyperparameters)
    return Cell(protocol, {}, rule, resolve(protocol, recipe, rule), seed)


def build_learner(
    cell: Cell, inputs: int, classes: int, dtype: torch.dtype, world: World = ALONE, whole: bool = False
) -> Learner:
    """The cell's learner for flat rows (N, inputs), on the CPU, with all its tensors of one type.

    `world` and `whole` are those of `Learner`.
    """
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return Learner(cell, (1, inputs, 1), classes, torch.device("cpu"), world=world, whole=whole)
    finally:
        torch.set_default_dtype(usual)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Torch's global generators and its number of threads are afterwards what they were.

    Inside there is one thread: the networks here are so small that a second one only waits.
    """
    threads = torch.get_num_threads()
    # A device that has not been used has no generator to keep, and asking for it would start the device.
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        torch.set_num_threads(threads)
