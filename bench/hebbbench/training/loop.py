"""The training loop: stages, epochs, steps; curves, checks and checkpoints. It knows no rule."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from hebbbench.data.batches import Batches
from hebbbench.data.decoding import ahead
from hebbbench.errors import HebbBenchError
from hebbbench.progress import Reporter, duration
from hebbbench.rng import generator
from hebbbench.sections import Training
from hebbbench.training.checkpoint import Checkpoint
from hebbbench.training.interrupt import StopRequest
from hebbbench.training.learner import Learner
from hebbbench.training.recording import CudaRecorder
from hebbbench.training.replay import Replay, can_replay

CHECK_EVERY = 50
"""Steps between two looks at the weights; each look waits for the device once."""

ESTIMATE_AFTER = 10
"""Steps measured before the first estimate of the whole, the very first (which warms caches) left out."""


class Diverged(HebbBenchError):
    """Training left the numbers. A result in itself, recorded with its step and layer.

    Args:
        step: at which it was seen; when: it happened, as far as known; since the last look at the weights if not given.
    """

    def __init__(self, step: int, layer: str, why: str, when: str | None = None) -> None:
        first = (step - 1) // CHECK_EVERY * CHECK_EVERY + 1
        when = when or (f"between steps {first} and {step}" if first < step else f"at step {step}")
        super().__init__(f"diverged {when}, in {layer}: {why}")
        self.step = step
        self.layer = layer


@dataclass
class State:
    """How far training has come. Everything in it survives a checkpoint."""

    stage: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    wall: float = 0.0
    probe_seconds: float = 0.0
    loss: float = 0.0
    resumed: int = 0
    replayed: int = 0
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._mark = time.perf_counter()

    def tick(self) -> float:
        """Add the time since the last call to `wall`, and return it."""
        now = time.perf_counter()
        passed, self._mark = now - self._mark, now
        self.wall += passed
        return passed

    def record(self, curve: str, x: float, y: float) -> None:
        """Add a point to a curve."""
        self.curves.setdefault(curve, []).append((x, y))


class Loop:
    """Trains a learner on the training samples, from wherever `state` says.

    Args:
        indices: of the training samples within `batches`, (n,) on the device.
        validate: accuracy on the validation split, or None where nothing can be validated.
        keep: called behind every epoch with the number of epochs over all stages, or None where nothing is kept.
    """

    def __init__(
        self,
        learner: Learner,
        batches: Batches,
        indices: Tensor,
        training: Training,
        state: State,
        checkpoint: Checkpoint,
        stop: StopRequest,
        reporter: Reporter,
        validate: Callable[[], float] | None,
        keep: Callable[[int], None] | None = None,
    ) -> None:
        self.learner = learner
        self.batches = batches
        self.indices = indices
        self.training = training
        self.state = state
        self.checkpoint = checkpoint
        self.stop = stop
        self.reporter = reporter
        self.validate = validate
        self.keep = keep
        self.per_epoch = batches_per_epoch(len(indices), training.batch_size)
        self.stages = stages(training, learner)
        self.total = self.stages * training.epochs * self.per_epoch
        self.replay = Replay(learner, CudaRecorder(learner.device), reporter.say) if can_replay(learner) else None

    def run(self) -> None:
        """Train to the end.

        Raises:
            Diverged: a weight is no number, or exploded.
            RunInterrupted: a stop was asked for; the checkpoint holds everything up to the last whole step.
        """
        state = self.state
        if self.total == 0:
            return
        self.reporter.phase("training", self.total, state.step)
        while state.stage < self.stages:
            while state.epoch < self.training.epochs:
                self._epoch()
                state.epoch, state.batch = state.epoch + 1, 0
            state.stage, state.epoch = state.stage + 1, 0
        self._check()

    def _epoch(self) -> None:
        state, size = self.state, self.training.batch_size
        passed = state.stage * self.training.epochs + state.epoch
        order = torch.randperm(len(self.indices), generator=generator(self.learner.seed, "order", passed))
        order = self.indices[order.to(self.indices.device)]
        only = state.stage if self.training.schedule == "layerwise" else None
        stage_steps = self.training.epochs * self.per_epoch
        loss_sum = torch.tensor(state.loss, dtype=torch.float64, device=self.learner.device)
        began = time.perf_counter()
        first, begin = state.batch, state.step
        step = self.learner.step if self.replay is None else self.replay.step
        parts = order.split(size)[first : self.per_epoch]
        sources = (generator(self.learner.seed, "augmentation", begin + i) for i in range(len(parts)))
        taken = zip(parts, ahead(self.batches, parts, sources, self.learner.world), strict=True)
        for batch, (part, (x, labels)) in enumerate(taken, start=first):
            done = (state.epoch * self.per_epoch + batch) / stage_steps
            batch_loss = step(x, labels, state.step, done, only)
            if batch_loss is not None:
                loss_sum += batch_loss
            if self.replay is not None:
                state.replayed += self.replay.replayed
            state.batch, state.step, state.samples = batch + 1, state.step + 1, state.samples + len(part)
            self.reporter.advance()
            if state.step % CHECK_EVERY == 0:
                self._check()
            if self.stop.asked() or self.checkpoint.due():
                state.seconds += self._elapsed(began)
                began = time.perf_counter()
                state.loss = loss_sum.item()
                self._save()
            self._estimate(began)
        state.seconds += self._elapsed(began)
        state.loss = 0.0
        loss = loss_sum.item() / self.per_epoch
        if not math.isfinite(loss):
            self._check()
            first = state.step - self.per_epoch + 1
            when = f"between steps {first} and {state.step}"
            raise Diverged(state.step, "the read-out", "the loss is not a finite number", when)
        self._close_epoch(passed + 1, loss)

    def _close_epoch(self, epochs: int, loss: float) -> None:
        """Put the epoch's figures on the curves. x counts epochs over all stages."""
        note = ""
        if self.learner.trains_readout:
            self.state.record("train.loss", epochs, loss)
            note = f"loss {loss:.3f}"
        if self.validate is not None and self.learner.end_to_end:
            accuracy = self.validate()
            self.state.record("end_to_end.validation.accuracy", epochs, accuracy)
            note += f" · validation {100 * accuracy:.1f} %"
        if self.keep is not None:
            self.keep(epochs)
        self.reporter.advance(0, note)

    def _check(self) -> None:
        found = self.learner.diverged()
        if found is not None:
            raise Diverged(self.state.step, *found)

    def _elapsed(self, began: float) -> float:
        if self.learner.device.type == "cuda":
            torch.cuda.synchronize(self.learner.device)
        return time.perf_counter() - began

    def _estimate(self, began: float) -> None:
        """After the first steps, say how long the whole will take."""
        if self.state.resumed == 0 and self.state.step == 1:
            self._first = self._elapsed(began)
        if self.state.resumed == 0 and self.state.step == ESTIMATE_AFTER:
            step = (self._elapsed(began) - self._first) / (ESTIMATE_AFTER - 1)
            left = step * (self.total - ESTIMATE_AFTER)
            if left > 20:
                self.reporter.say(
                    f"  training will take about {duration(left)} on {self.learner.device.type}: {self.total} steps, "
                    f"{1000 * step:.3g} ms each (measured over {ESTIMATE_AFTER - 1}); the probe follows"
                )

    def _save(self) -> None:
        self.state.tick()
        self.checkpoint.save({"state": asdict(self.state), "learner": self.learner.state_dict(), "probe": None})
        if self.stop.asked():
            raise self.stop.stopped(f"after step {self.state.step} of {self.total}")


def stages(training: Training, learner: Learner) -> int:
    """How often the epochs are gone through: once, or once a plastic layer."""
    return len(learner.plasticity.layers) if training.schedule == "layerwise" else 1


def batches_per_epoch(samples: int, size: int) -> int:
    """Batches in an epoch. A last batch of one sample is left out: no statistic can be taken over it."""
    full, rest = divmod(samples, size)
    return full + (rest > 1)


def restore(saved: dict[str, Any], learner: Learner) -> State:
    """Take learner and state back from a checkpoint."""
    learner.load_state_dict(saved["learner"])
    state = State(**saved["state"])
    state.curves = {name: [(x, y) for x, y in points] for name, points in state.curves.items()}
    state.resumed += 1
    return state
