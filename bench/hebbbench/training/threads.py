"""How many threads a cell computes with: one where its products are too small to be divided."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hebbbench.cell import Cell
from hebbbench.training.outline import count

LIGHT = 2 * 10**8
"""Operations of one batch's forward pass below which threads wait for each other longer than they work.

On two idle cores a step of digits-mlp took 2.9 ms on both and 0.4 ms on one, one of mnist-mlp (0.9·10⁸) 5.1 and 4.1 ms;
from 6·10⁸ on both were as fast or faster.
"""
SAID = "OMP_NUM_THREADS"
"""The environment variable with which a user says how many threads there are; what it says stands."""


@contextmanager
def fitting_threads(cell: Cell, device: torch.device) -> Iterator[None]:
    """Within this context torch has one thread if the cell is light and runs on the CPU; behind it what it had before.

    The choice looks at the cell alone, because the number of threads decides the order of sums, and so the bits.
    """
    before = torch.get_num_threads()
    if before > 1 and device.type == "cpu" and SAID not in os.environ and light(cell):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def light(cell: Cell) -> bool:
    """Whether one batch's forward pass has fewer than `LIGHT` operations. Counted on shapes; nothing is computed."""
    operations, _ = count(cell.work.architecture.name, cell.recipe.architecture, cell.work.data.dataset)
    return operations * cell.recipe.training.batch_size < LIGHT
