"""Cells whose networks are trained together: which can be, how they are grouped, and one result for each."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import torch
from torch import Tensor

from hebbbench import registry
from hebbbench.cell import Cell
from hebbbench.data import dataset_spec
from hebbbench.errors import HebbBenchError
from hebbbench.progress import Reporter
from hebbbench.record import schema
from hebbbench.rng import generator
from hebbbench.training.alignment import AlignmentMeter
from hebbbench.training.course import Course
from hebbbench.training.ensemble import Ensemble
from hebbbench.training.interrupt import StopRequest
from hebbbench.training.learner import EXPLODED, Learner
from hebbbench.training.loop import CHECK_EVERY, Diverged, batches_per_epoch
from hebbbench.training.measured import describe_model
from hebbbench.training.optimise import annealing
from hebbbench.training.rehearsal import STEPS
from hebbbench.training.stackable import stackable
from hebbbench.training.work import count
from hebbbench.validation import canonical_json

CHUNK = 10
"""Networks trained at once: enough to keep a core busy, few enough that their activity stays in its cache."""

CHUNK_ON_A_GPU = 100
"""The same where launches decide: one serves all networks, and a hundred wide ones fit in the memory."""

BLOCK = 8
"""Batches gathered at once."""

TELL_EVERY = 10
"""Steps between two words on how far training is."""

OWN = ("lr", "weight_decay", "l1", "clip")
"""Numbers of an optimizer that each network of an ensemble may have its own of."""


def can_be_together(cell: Cell, device: torch.device) -> bool:
    """Whether a cell's network can be one of an ensemble: a small one that only its alignment is measured of."""
    work = cell.work
    if work.alignment is None or work.alignment.sgd or work.probe is not None:
        return False
    if work.data.validation:
        return False
    if work.data.augment != "none" or not cell.recipe.training.epochs:
        return False
    if registry.rule(cell.rule).shape != "delta":
        return False
    spec = dataset_spec(work.data.dataset)
    return stackable(Learner(cell, spec.shape, spec.classes, device), cell.recipe.training)


def chunk_size(device: torch.device) -> int:
    """Networks trained at once on a device."""
    return CHUNK if device.type == "cpu" else CHUNK_ON_A_GPU


def chunks(cells: Sequence[Cell], size: int) -> Iterator[list[Cell]]:
    """The cells in chunks that can be trained together; those of one seed, which share their data, lie together."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(_kind(cell), []).append(cell)
    for group in groups.values():
        ordered = sorted(group, key=lambda cell: cell.seed)
        for start in range(0, len(ordered), size):
            yield ordered[start : start + size]


def _kind(cell: Cell) -> str:
    """What cells of one chunk must have in common."""
    recipe = cell.recipe.identity()
    training = {key: value for key, value in recipe["training"].items() if key not in ("noise", "sparsity")}
    for part in ("optimizer", "rest"):
        if training.get(part) is not None:
            training[part] = {key: value for key, value in training[part].items() if key not in OWN}
    work = {key: value for key, value in cell.work.identity().items() if key != "training"}  # which the recipe settles
    return canonical_json([cell.rule, {**recipe, "training": training}, work])


class Chunk:
    """Networks about to be trained together, on one thread; torch's global generator is drawn from here alone.

    Args:
        courses: of each network; identities: of its cell.

    Raises:
        HebbBenchError: the protocol measures no alignment, or code was edited since the cells were planned.
    """

    def __init__(self, courses: Sequence[Course], identities: Sequence[str]) -> None:
        self.courses, self.identities = courses, identities
        first = courses[0]
        spec = first.cell.work.alignment
        if spec is None:
            raise HebbBenchError(
                f"protocol '{first.cell.protocol.name}' measures no alignment; its cells train one by one."
            )
        self.batches = first.batches(first.dataset.train)
        self.learners = [course.learner() for course in courses]
        self.meters = [course.meter(learner, spec) for course, learner in zip(courses, self.learners, strict=True)]
        for course, learner in zip(courses, self.learners, strict=True):
            course.cell.check_code()
            course.measured.model = describe_model(learner)
            course.measured.phase = "training"
        self.ensemble = self._together()
        self._rehearse()

    def _together(self) -> Ensemble:
        """The networks as they are drawn."""
        return Ensemble(self.learners, [course.cell.recipe.training for course in self.courses])

    def _rehearse(self) -> None:
        """Count a step of one network, and see whether this machine repeats the bits of a few steps of all of them."""
        first = self.courses[0]
        part = first.train_indices[: first.cell.recipe.training.batch_size]
        rows = self.batches.plain(part)
        work = count(first.learner(), *rows)
        x, targets = (each.expand(len(self.courses), *each.shape) for each in rows)
        left = []
        for _ in range(2):
            ensemble = self._together()
            for step in range(STEPS):
                ensemble.step(x, targets, step, 1.0)
            left.append(ensemble.weights)
        same = all(torch.equal(one, other) for one, other in zip(*left, strict=True))
        for course in self.courses:
            course.measured.work, course.measured.determinism = work, same


def train_together(chunk: Chunk, request: StopRequest, reporter: Reporter) -> list[schema.Result]:
    """Train a chunk's networks together and conclude each; every course's result, in order.

    Time is shared out evenly: a network's cost is the chunk's divided by its size.

    Raises:
        RunInterrupted: a stop was asked for; the chunk's work is lost, finished chunks are not.
    """
    started, began = datetime.now(UTC), time.perf_counter()
    courses, meters, batches = chunk.courses, chunk.meters, chunk.batches
    diverged = _train(chunk.ensemble, courses, meters, batches, request, reporter)
    chunk.ensemble.release()
    trained = time.perf_counter() - began
    results = []
    for e, (course, meter) in enumerate(zip(courses, meters, strict=True)):
        measured, since = course.measured, time.perf_counter()
        measured.state.seconds = trained / len(courses)
        failure = diverged.get(e)
        if failure is None:
            measured.weights = chunk.learners[e].digest()
            measured.phase = "alignment"
            course.conclude(meter, batches)
        measured.state.wall = measured.state.seconds + time.perf_counter() - since
        stop = None if failure is None else schema.Stop(phase="training", step=failure.step, layer=failure.layer)
        status: schema.Status = "ok" if failure is None else "diverged"
        reason = None if failure is None else str(failure)
        results.append(course.record(chunk.identities[e], status, reason, stop, started))
    return results


def _train(
    ensemble: Ensemble,
    courses: Sequence[Course],
    meters: Sequence[AlignmentMeter],
    batches: object,
    request: StopRequest,
    reporter: Reporter,
) -> dict[int, Diverged]:
    """Every step of the training; which networks left the numbers, and where."""
    first = courses[0]
    training, indices = first.cell.recipe.training, first.train_indices
    per_epoch = batches_per_epoch(len(indices), training.batch_size)
    total = training.epochs * per_epoch
    feed = Feed(batches, ensemble.seeds, ensemble.device)
    diverged: dict[int, Diverged] = {}
    step = told = 0
    for epoch in range(training.epochs):
        orders = {
            seed: indices[torch.randperm(len(indices), generator=generator(seed, "order", epoch)).to(indices.device)]
            for seed in set(ensemble.seeds)
        }
        losses = torch.zeros(ensemble.size, dtype=torch.float64, device=ensemble.device)
        for x, targets in feed.epoch(orders, training.batch_size, per_epoch):
            loss = ensemble.step(x, targets, step, annealing(training.annealing, step / total))
            if loss is not None:
                losses += loss
            if step >= meters[0].first:
                found = {name: values.tolist() for name, values in ensemble.alignment().items()}
                for e, meter in enumerate(meters):
                    meter.add({name: values[e] for name, values in found.items()})
            step += 1
            if step % TELL_EVERY == 0 or step == total:
                reporter.advance(ensemble.size * (step - told))
                told = step
            if step % CHECK_EVERY == 0 or step == total:
                _look(ensemble, step, diverged)
            if request.asked():
                raise request.stopped(f"after step {step} of {total} of the networks at work, which begin anew")
        for e, course in enumerate(courses):
            state = course.measured.state
            state.step, state.epoch = step, epoch + 1
            state.samples += min(len(indices), per_epoch * training.batch_size)
            if ensemble.end_to_end and e not in diverged:
                mean = losses[e].item() / per_epoch
                if math.isfinite(mean):
                    state.record("train.loss", epoch + 1, mean)
                else:
                    diverged[e] = Diverged(step, "the read-out", "the loss is not a finite number")
    return diverged


def _look(ensemble: Ensemble, step: int, diverged: dict[int, Diverged]) -> None:
    for e, row in enumerate(ensemble.largest()):
        for name, value in row.items():
            if e not in diverged and not value <= EXPLODED:
                why = f"a weight reached {value:.3g}" if math.isfinite(value) else "a weight is not a finite number"
                diverged[e] = Diverged(step, name, why)


class Feed:
    """Batches for all networks: data are gathered once for each seed among them."""

    def __init__(self, batches: object, seeds: list[int], device: torch.device) -> None:
        self.batches = batches
        self.distinct = list(dict.fromkeys(seeds))
        self.place = torch.tensor([self.distinct.index(seed) for seed in seeds], device=device)

    def epoch(self, orders: dict[int, Tensor], size: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The first `count` batches of an epoch: x (E, B, features) and targets (E, B, …).

        Args:
            orders: the indices of each seed's samples, (n,); size: of a batch.
        """
        for block in range(0, count, BLOCK):
            part = slice(block * size, min(block + BLOCK, count) * size)
            pairs = [self.batches.plain(orders[seed][part]) for seed in self.distinct]  # type: ignore[attr-defined]
            xs, targets = (torch.stack(parts) for parts in zip(*pairs, strict=True))
            for both in zip(xs.split(size, 1), targets.split(size, 1), strict=True):
                x, y = (self._of_each(rows) for rows in both)
                yield x, y

    def _of_each(self, rows: Tensor) -> Tensor:
        """Each network's rows, from those of each seed."""
        if len(self.distinct) == 1:
            return rows.expand(len(self.place), *rows.shape[1:])
        return rows.index_select(0, self.place)
