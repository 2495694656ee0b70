"""A few steps before training, thrown away: does this machine repeat its bits, and what does a step cost?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hebbbench.plasticity.routes import timed
from hebbbench.rng import generator
from hebbbench.training.work import count

if TYPE_CHECKING:
    from hebbbench.training.course import Course

STEPS = 2


def repeats_bits(course: Course, batches: Any) -> bool:
    """Whether the first steps, run twice from the same start, leave the same weights.

    The first of them is counted, into `course.measured.work`.
    """
    only = 0 if course.cell.recipe.training.schedule == "layerwise" else None
    if timed(course.device, torch.bfloat16 if course.cell.work.precision == "bfloat16" else torch.float32):
        # In a step of its own, because no way of an outer product is chosen while operations are counted.
        course.learner().step(*_batch(course, batches, 0), 0, 0.0, only)
    digests = set()
    for _ in range(2):
        learner = course.learner()
        for step in range(STEPS):
            x, labels = _batch(course, batches, step)
            if course.measured.work is None:
                course.measured.work = count(learner, x, labels, step, only)
            else:
                learner.step(x, labels, step, 0.0, only)
        course.world.end()
        digests.add(learner.digest())
    return len(digests) == 1


def _batch(course: Course, batches: Any, step: int) -> tuple[Tensor, Tensor]:
    """One of these steps' batches, this process's share of it."""
    size = min(course.cell.recipe.training.batch_size, len(course.pool_indices))
    source = generator(course.cell.seed, "determinism probe", step)
    order = torch.randperm(len(course.pool_indices), generator=source)[:size]
    part = course.world.begin(size)
    found: tuple[Tensor, Tensor] = batches.batch(course.pool_indices[order.to(course.device)], source, part)
    return found
