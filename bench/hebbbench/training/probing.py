"""After training: the frozen body's features, the read-outs that are fitted to them, and the test split, read once."""

from __future__ import annotations

import copy
import time
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from hebbbench.record import schema
from hebbbench.sections import Probe
from hebbbench.training.apparatus import Apparatus
from hebbbench.training.features import accuracy, estimate_statistics, extract, statistics_kept
from hebbbench.training.interrupt import StopRequest
from hebbbench.training.learner import Learner
from hebbbench.training.loop import Diverged, stages
from hebbbench.training.probe import MANY_CLASSES, Labelled, LinearProbe, fit, standardise
from hebbbench.training.published import PublishedReadout

CHECKED_AT_ONCE = 4096
"""Samples whose features are looked at together, for the memory that takes."""


class Probing:
    """The probe of one cell, with a safe stop after every batch and epoch.

    Args:
        apparatus: of the cell.
        learner: trained.
        batches: of the training split.
        saved: the checkpoint that the cell goes on from, if there is one.
    """

    def __init__(
        self,
        apparatus: Apparatus,
        learner: Learner,
        batches: Any,
        spec: Probe,
        request: StopRequest,
        saved: dict[str, Any] | None,
    ) -> None:
        self.apparatus, self.learner, self.batches, self.spec, self.request = apparatus, learner, batches, spec, request
        self.measured, self.trained_for = apparatus.measured, apparatus.cell.recipe.training.epochs
        self._earlier, self._began = self.measured.state.probe_seconds, time.perf_counter()
        # The trained state, before statistics are re-estimated: what a checkpoint must hold.
        self._held: dict[str, Any] = {
            "learner": copy.deepcopy(learner.state_dict()),
            "probe": None,
            "published": None,
            "epochs": [],
        }
        kept = ("probe", "published", "epochs")
        self._held |= {name: saved[name] for name in kept if saved is not None and saved.get(name)}
        self._resumed_at = None if saved is None else self._reached(saved["state"]["step"])

    def run(self) -> None:
        """All of it.

        Raises:
            RunInterrupted: a stop was asked for; the checkpoint holds what was done.
            LimitTooShort: nothing more was done, and would be under the same limit.
            Diverged: a feature is no finite number.
        """
        own, measured = self.apparatus, self.measured
        self._pause(more=True)
        if self.learner.end_to_end and len(own.validation_indices):
            right = accuracy(self.learner, self.batches, own.validation_indices)
            measured.accuracy("end_to_end.validation", right, self.trained_for)
        with statistics_kept(self.learner):
            estimate_statistics(
                self.learner, self.batches, own.train_indices, self.spec.statistics_samples, self._pause
            )
            own.reporter.phase("extracting features", len(own.train_indices) + len(own.validation_indices))
            train = self._features(self.batches, own.train_indices)
            validation = self._features(self.batches, own.validation_indices)
            if measured.observer is not None:
                measured.metrics |= measured.observer.feature_metrics(validation.features, self.trained_for)
            published = self._published(train)
            moments = standardise(train.features, validation.features) if self.spec.standardize else None
            probe = self._fitted(train, validation)
            if own.read_test:
                test = own.batches(own.dataset.open_test())
                everything = torch.arange(len(test), device=own.device)
                own.reporter.phase("test", len(test))
                self._read(self._features(test, everything), probe, published, moments)
        if own.read_test and self.learner.end_to_end:
            self._read_end_to_end(test, everything)
        if own.scores_epochs(self.learner):
            self._read_epochs(test, everything)
        self._tick()

    def _features(self, batches: Any, indices: Tensor) -> Labelled:
        """The body's answers to these samples.

        Raises:
            Diverged: one is no finite number, though every weight is: no read-out could be trained on such.
        """
        own = self.apparatus
        features = extract(self.learner, batches, indices, own.reporter, own.scratch, self._pause)
        if not all(bool(part.isfinite().all()) for part in features.split(CHECKED_AT_ONCE)):
            step = self.measured.state.step
            raise Diverged(step, "the features", "not all are finite numbers", f"behind step {step}")
        return Labelled(features, batches.labels(indices))

    def _published(self, train: Labelled) -> PublishedReadout | None:
        """The second read-out of a protocol that has one, trained; it reads the test split, so not while tuning."""
        own = self.apparatus
        spec = own.cell.work.published_probe
        if spec is None or not own.read_test:
            return None
        readout = PublishedReadout(spec, train, own.dataset.classes, own.cell.seed, own.reporter.say)
        if self._held["published"] is not None:
            readout.load_state_dict(self._held["published"])
        readout.fit(own.reporter, self._pause, lambda state: self._held.update(published=state))
        return readout

    def _fitted(self, train: Labelled, validation: Labelled) -> LinearProbe:
        """The linear probe, trained for all its epochs."""
        own, spec = self.apparatus, self.spec
        features, classes = train.features.shape[1], own.dataset.classes
        probe = LinearProbe(spec, features, classes, own.cell.seed, own.device, own.reporter.say)
        if self._held["probe"] is not None:
            probe.load_state_dict(copy.deepcopy(self._held["probe"]))  # an optimizer goes on in the tensors it is given
            self.measured.probe_curve = probe.curve
        own.reporter.phase("linear probe", spec.epochs, probe.epoch)
        while probe.epoch < spec.epochs:
            fit(probe, train, validation if len(validation.labels) else None, own.reporter, self._pause)
            self.measured.probe_curve = probe.curve
            self._held["probe"] = copy.deepcopy(probe.state_dict())
            self._pause(more=True)
        probe.release()
        self.measured.accuracy("probe.train", probe.accuracy(train), spec.epochs)
        if len(validation.labels):
            self.measured.accuracy("probe.validation", probe.accuracy(validation), spec.epochs)
        return probe

    def _read(
        self,
        test: Labelled,
        probe: LinearProbe,
        published: PublishedReadout | None,
        moments: tuple[Tensor, Tensor] | None,
    ) -> None:
        """What both read-outs make of the test split. `moments` standardise its features, in place."""
        if published is not None:
            value, epoch = published.best(test)
            self.measured.metrics[schema.PUBLISHED_READOUT] = schema.Metric(value=value, split="test", epoch=epoch)
        if moments is not None:
            test.features.sub_(moments[0]).mul_(moments[1])
        self.measured.accuracy("probe.test", probe.accuracy(test), self.spec.epochs)
        if self.apparatus.dataset.classes >= MANY_CLASSES:
            self.measured.top5("probe.test", probe.accuracy(test, 5), self.spec.epochs)

    def _read_end_to_end(self, test: Any, indices: Tensor) -> None:
        """What the network's own read-out makes of the test split, with the statistics it was trained with."""
        right = accuracy(self.learner, test, indices, self._pause)
        self.measured.accuracy("end_to_end.test", right, self.trained_for)
        if self.apparatus.dataset.classes >= MANY_CLASSES:
            near = accuracy(self.learner, test, indices, self._pause, top=5)
            self.measured.top5("end_to_end.test", near, self.trained_for)

    def _read_epochs(self, test: Any, indices: Tensor) -> None:
        """The best of all epochs of training on the test split, as papers print it. The trained network stays."""
        own, model, scores = self.apparatus, self.learner.model, self._held["epochs"]
        total = self.trained_for * stages(own.cell.recipe.training, self.learner)
        own.reporter.phase("test, epoch by epoch", total, len(scores))
        try:
            while len(scores) < total:
                epoch = len(scores) + 1
                kept = own.checkpoint.epochs.load(epoch)
                if kept is None:
                    why = f"the network after epoch {epoch} is missing from the cache or damaged; --force begins anew"
                    self.measured.metrics[schema.PUBLISHED_EPOCH] = schema.Metric(
                        value=None, split="test", epoch=total, reason=why
                    )
                    return
                model.load_state_dict(kept)
                scores.append(accuracy(self.learner, test, indices, self._pause))
                own.reporter.advance()
                self._pause(more=True)
        finally:
            model.load_state_dict(self._held["learner"]["model"])
        if scores:
            best = max(scores)
            self.measured.metrics[schema.PUBLISHED_EPOCH] = schema.Metric(
                value=best, split="test", epoch=scores.index(best) + 1
            )

    # Stops and checkpoints

    def _pause(self, more: bool = False) -> None:
        """Stop here if asked; write a checkpoint now and then, if there is `more` to hold than in the last one."""
        if not self.request.asked() and not (more and self.apparatus.checkpoint.due()):
            return
        self._tick()
        state = self.measured.state
        state.tick()
        self.apparatus.checkpoint.save({"state": asdict(state), **self._held})
        if self.request.asked():
            reached = self._reached(state.step)
            stuck = "features are extracted anew each time" if self._resumed_at == reached else ""
            raise self.request.stopped(f"after probe epoch {reached[1]} of {self.spec.epochs}", stuck)

    def _tick(self) -> None:
        self.measured.state.probe_seconds = self._earlier + time.perf_counter() - self._began

    def _reached(self, step: int) -> tuple[int, int, int, int]:
        """How far a checkpoint has come: training steps, epochs of the probe and of the published read-out, scores."""
        probe, published = self._held["probe"], self._held["published"]
        read_outs = 0 if probe is None else probe["epoch"], 0 if published is None else len(published["epochs"])
        return step, *read_outs, len(self._held["epochs"])
