"""The course of one cell: train, freeze, probe, open the test split once, and write down whatever came of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hebbbench import registry
from hebbbench.errors import (
    DataError,
    HebbBenchError,
    LimitTooShort,
    ResultError,
    RunInterrupted,
    one_line,
    place_in,
)
from hebbbench.record import schema
from hebbbench.sections import Alignment
from hebbbench.training.alignment import ANSWERS, AlignmentMeter, full_data, layer_of, short
from hebbbench.training.apparatus import Apparatus
from hebbbench.training.device import reset_peak_memory
from hebbbench.training.features import accuracy
from hebbbench.training.interrupt import StopRequest, stop_requests
from hebbbench.training.learner import Learner
from hebbbench.training.loop import Diverged, Loop, batches_per_epoch, restore, stages
from hebbbench.training.measured import describe_model
from hebbbench.training.network import build_model
from hebbbench.training.observer import Observer
from hebbbench.training.passes import objective
from hebbbench.training.probing import Probing
from hebbbench.training.rehearsal import repeats_bits
from hebbbench.training.witness import Witness


class Course(Apparatus):
    """The course of one cell.

    Attributes:
        trained: the learner behind its training; stopped: whether a stop was asked for while the cell came to its end.
    """

    trained: Learner | None = None
    stopped = False

    def result(self, identity: str) -> schema.Result:
        """Run the cell to its end, whatever that is.

        Raises:
            RunInterrupted: a stop was asked for before the end; the checkpoint holds what was done.
            LimitTooShort: its time limit came, and would come again and again, before anything more could be done.
            HebbBenchError: the cell cannot be built, or a checkpoint cannot be written.
        """
        started = datetime.now(UTC)
        reset_peak_memory(self.device)
        status: schema.Status = "ok"
        reason: str | None = None
        stop: schema.Stop | None = None
        measured = self.measured
        with (
            torch.random.fork_rng(devices=range(torch.cuda.device_count())),
            stop_requests(self.limit, self.world) as request,
        ):
            try:
                self._measure(request)
            except Diverged as error:
                status, reason = "diverged", str(error)
                stop = schema.Stop(phase=measured.phase, step=error.step, layer=error.layer)
            except (RunInterrupted, LimitTooShort, ResultError, DataError):
                raise
            except (MemoryError, torch.OutOfMemoryError) as error:
                status, reason = (
                    "failed",
                    f"out of memory on {self.device.type} during {measured.phase}: {one_line(error)}",
                )
            except Exception as error:
                if isinstance(error, HebbBenchError) and measured.phase == "setup":
                    raise
                said = one_line(error) + place_in(error, registry.rule_path(self.cell.rule))
                status, reason = "failed", f"{type(error).__name__} during {measured.phase}: {said}"
            self.stopped = request.signalled
        if status == "failed":
            reason = self.world.failed(str(reason))
            stop = schema.Stop(phase=measured.phase, step=measured.state.step)
        else:
            self.stopped = self.world.any(self.stopped)
        measured.state.tick()
        return self.record(identity, status, reason, stop, started)

    def _measure(self, request: StopRequest) -> None:
        measured, work = self.measured, self.cell.work
        batches = self.batches(self.dataset.train)
        pool = batches if self.dataset.unlabelled is None else self.batches(self.dataset.unlabelled)
        learner = self.learner()
        self.cell.check_code()
        measured.model = describe_model(learner)
        meter = self.meter(learner, work.alignment) if work.alignment is not None else None
        measured.phase = "training"
        if self.cell.recipe.training.epochs:
            measured.determinism = repeats_bits(self, pool)
        if self.diagnostics:
            learner.observer = measured.observer = self._observer(learner)
        saved = self.checkpoint.load()
        if self.checkpoint.damaged:
            self.reporter.say("  the checkpoint is damaged or of another form; training begins anew")
        if saved is not None and self.diagnostics and saved["learner"].get("observer") is None:
            self.reporter.say("  the checkpoint holds no diagnostics; training begins anew")
            saved = None
        if saved is not None:
            measured.state = restore(saved, learner)
            self.reporter.say(f"  going on from the checkpoint at step {measured.state.step}")
        state, training = measured.state, self.cell.recipe.training
        keep = self.keeper(learner, state.stage * training.epochs + state.epoch)
        validate = partial(accuracy, learner, batches, self.validation_indices) if work.data.validation else None
        Loop(
            learner,
            pool,
            self.pool_indices,
            training,
            state,
            self.checkpoint,
            request,
            self.reporter,
            validate,
            keep,
        ).run()
        measured.weights = learner.digest()
        self.trained = learner
        if measured.observer is not None:
            measured.metrics |= measured.observer.training_metrics(self.cell.recipe.training.epochs)
        if meter is not None:
            measured.phase = "alignment"
            self.conclude(meter, batches)
        if work.probe is not None:
            measured.phase = "probe"
            Probing(self, learner, batches, work.probe, request, saved).run()

    def meter(self, learner: Learner, spec: Alignment) -> AlignmentMeter:
        """What measures the learner's alignment in training; it looks on at the learner's steps from now on."""
        training = self.cell.recipe.training
        per_epoch = batches_per_epoch(len(self.pool_indices), training.batch_size)
        total = training.epochs * per_epoch
        witness = self._witness(learner) if spec.sgd else None
        learner.watch = meter = AlignmentMeter(learner, spec.window, total, per_epoch, witness)
        return meter

    def conclude(self, meter: AlignmentMeter, batches: Any) -> None:
        """Write down how Hebbian training ended, and how well the network answers.

        Of a layer whose weights have collapsed only noise is left, and a cosine would be one of noise. Small weights
        are no collapse if the network answers: a task may need no larger ones.
        """
        epochs = self.cell.recipe.training.epochs
        collapsed = {} if self._answers_something(batches) else meter.collapsed()
        found = {**meter.means(), **full_data(meter, batches, self.train_indices)}
        self.measured.state.curves |= meter.curves
        for name, value in found.items():
            reason = collapsed.get(layer_of(name))
            if reason is None and not math.isfinite(value):
                reason = "an update or an activity is zero: there is no angle"
            self.measured.metrics[f"alignment.{name}"] = schema.Metric(
                value=None if reason else value, split="train", epoch=epochs, reason=reason
            )
        for layer in meter.learner.plasticity.layers:
            self.measured.metrics[f"norm.{short(layer.name)}"] = schema.Metric(
                value=layer.weight.norm().item(), split="train", epoch=epochs
            )
        if self.read_test and self.cell.work.probe is None and meter.learner.trains_readout:
            test = self.batches(self.dataset.open_test())
            everything = torch.arange(len(test), device=self.device)
            pairs = list(self._answers(meter.learner, test, everything))
            answers, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
            loss = objective(self.cell.work.loss, answers, targets).item()
            self.measured.metrics["end_to_end.test.loss"] = schema.Metric(value=loss, split="test", epoch=epochs)
            if self.cell.work.loss == "cross_entropy":
                right = (answers.argmax(1) == targets).double().mean().item()
                self.measured.accuracy("end_to_end.test", right, epochs)

    def _answers_something(self, batches: Any) -> bool:
        """Whether the training loss ended well below that of a network that always answers zero."""
        losses = self.measured.state.curves.get("train.loss")
        if not losses:
            return False
        targets = batches.labels(self.train_indices)
        nothing = torch.zeros(len(targets), self.dataset.classes, device=self.device)
        return losses[-1][1] < ANSWERS * objective(self.cell.work.loss, nothing, targets).item()

    @staticmethod
    def _answers(learner: Learner, batches: Any, indices: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The frozen network's outputs and what they should have been, batch by batch."""
        for part in indices.split(256):
            x, targets = batches.plain(part)
            yield learner.logits(x), targets

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, tuple[int, int, int]]]:
        """What `record.tensors` keeps of a trained cell, and the image shape of each layer that looks at one."""
        if self.trained is None:
            return {}, {}
        found: dict[str, Tensor] = {}
        shapes: dict[str, tuple[int, int, int]] = {}
        witness = None if self.measured.observer is None else self.measured.observer.witness
        for index, (layer, drawn) in enumerate(
            zip(self.trained.plasticity.layers, self.learner().plasticity.layers, strict=True)
        ):
            name = layer.name.removeprefix("body.")
            found |= {f"{name}/first": drawn.weight, f"{name}/last": layer.weight}
            if witness is not None and index in witness.last:
                found[f"{name}/update"], found[f"{name}/hebb"] = witness.last[index]
            kernel = layer.module.weight.shape
            if len(kernel) == 4:
                shapes[name] = kernel[2], kernel[3], kernel[1]
            elif index == 0 and kernel[1] == math.prod(self.dataset.shape):
                shapes[name] = self.dataset.shape
        return found, shapes

    def _observer(self, learner: Learner) -> Observer:
        """Diagnostics of this learner; what it compares with is a network built once more from the same draws."""
        training = self.cell.recipe.training
        per_epoch = batches_per_epoch(len(self.pool_indices), training.batch_size)
        steps = stages(training, learner) * training.epochs * per_epoch
        return Observer(learner, self._witness(learner), steps, per_epoch)

    def _witness(self, learner: Learner) -> Witness:
        architecture = self.cell.work.architecture.name
        model = build_model(architecture, self.cell.recipe.architecture, self.dataset.shape, self.dataset.classes)
        return Witness(model, learner)

    def record(
        self,
        identity: str,
        status: schema.Status,
        reason: str | None,
        stop: schema.Stop | None,
        started: datetime,
    ) -> schema.Result:
        """The result, with what has been measured so far."""
        observer = self.measured.observer
        if observer is not None:
            self.reporter.say(f"  diagnostics took {observer.seconds:.1f} s of {self.measured.state.wall:.1f} s")
        samples = len(self.train_indices), len(self.validation_indices)
        return self.measured.result(
            self.cell, self.dataset, samples, self.device, identity, status, reason, stop, started
        )
