"""A few steps before training, thrown away: does this machine repeat its bits, and what does a step cost?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hebbbench.plasticity.routes import timed
from hebbbench.rng import generator
from hebbbench.training.apparatus import Apparatus
from hebbbench.training.work import count

STEPS = 2


def repeats_bits(apparatus: Apparatus, batches: Any) -> bool:
    """Whether the first steps, run twice from the same start, leave the same weights.

    One of them, or one before them, is counted, into `apparatus.measured.work`.
    """
    measured = apparatus.measured
    only = 0 if apparatus.cell.recipe.training.schedule == "layerwise" else None
    if timed(apparatus.device, torch.float32 if apparatus.cell.work.precision == "float32" else torch.bfloat16):
        # Apart from these: while operations are counted, no way of an outer product is chosen, no kernel of ours runs.
        learner = apparatus.learner()
        learner.step(*_batch(apparatus, batches, 0), 0, 0.0, only)
        if measured.work is None:
            measured.work = count(learner, *_batch(apparatus, batches, 0), 0, only)
        apparatus.world.end()
    apart = measured.work is not None
    first, second = _after_steps(apparatus, batches, only), _after_steps(apparatus, batches, only)
    if first != second and not apart:  # what is counted may be computed in another way
        first = _after_steps(apparatus, batches, only)
    return first == second


def _after_steps(apparatus: Apparatus, batches: Any, only: int | None) -> str:
    """The digest of the weights after the first steps. The first of all is counted, if none has been."""
    learner, measured = apparatus.learner(), apparatus.measured
    for step in range(STEPS):
        x, labels = _batch(apparatus, batches, step)
        if measured.work is None:
            measured.work = count(learner, x, labels, step, only)
        else:
            learner.step(x, labels, step, 0.0, only)
    apparatus.world.end()
    return learner.digest()


def _batch(apparatus: Apparatus, batches: Any, step: int) -> tuple[Tensor, Tensor]:
    """One of these steps' batches, this process's share of it."""
    size = min(apparatus.cell.recipe.training.batch_size, len(apparatus.pool_indices))
    source = generator(apparatus.cell.seed, "determinism probe", step)
    order = torch.randperm(len(apparatus.pool_indices), generator=source)[:size]
    part = apparatus.world.begin(size)
    found: tuple[Tensor, Tensor] = batches.batch(apparatus.pool_indices[order.to(apparatus.device)], source, part)
    return found
