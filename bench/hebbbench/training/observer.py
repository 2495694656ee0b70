"""Diagnostics: what a run shows of its learning dynamics, beside its accuracy. Off unless asked for.

The observer looks at each layer's update as the rule left it, before the optimizer takes the step, and at the frozen
features. It draws nothing, changes nothing that training reads, and keeps to names that begin with `diagnostics.`, so
a cell measures the same with it and without.

    every step        ā_k, the running mean of each unit's step size ‖Δw_k‖, at learning rate 1; Σ sign(Δw)
    at LOGS moments   Gini of ā, mean ‖w_k‖, alignment and sign agreement of Δw          curves over epochs
    at the end        units dead by update and by weight, norms, consistency of signs,   metrics
                      alignment over the last tenth
    at the read-out   effective rank, correlation, units dead by activity and by wins    on the validation split
"""

from __future__ import annotations

import time
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from hebbbench.metrics.activity import Activity
from hebbbench.metrics.correlation import neuron_correlation
from hebbbench.metrics.direction import cosine, sign_consistency
from hebbbench.metrics.firing import Firing
from hebbbench.metrics.gini import gini, step_size
from hebbbench.metrics.norms import weight_norms
from hebbbench.metrics.rank import PER_FEATURE, effective_rank
from hebbbench.metrics.units import activation_dead, update_dead, weight_dead, win_dead
from hebbbench.plasticity.signals import pre_of, weight_rows
from hebbbench.plasticity.terms import hebb
from hebbbench.record.schema import DIAGNOSTICS, Metric
from hebbbench.training.learner import Learner
from hebbbench.training.witness import Witness

LOGS = 50
"""Points on each curve, beside the one after the first step."""

SAMPLES = 5000
"""Validation samples whose activity is looked at, at most; for the effective rank more, where there are more features
than a fifth of them."""

NUMBERS = 2**27
"""What the effective rank is computed of, at most, samples × features: 1 GiB in float64, held twice."""

UNITS = 2048
"""Features that are correlated with each other, at most; evenly spaced where there are more."""

HEBB, GRADIENT = "hebbian_alignment", ("gradient_alignment", "gradient_sign")
"""How `Witness.compare` names what it compares an update with."""

Points = list[tuple[float, float]]
"""(epoch, value) of a curve."""


class Observer:
    """Watches one learner while it trains.

    Args:
        learner: attached to by `learner.observer = Observer(…)`.
        witness: tells what the gradient and Hebb's rule would have done; None leaves alignments out.
        steps: of the whole training; per_epoch: of one epoch, the unit of the curves' x.
    """

    def __init__(self, learner: Learner, witness: Witness | None, steps: int, per_epoch: int) -> None:
        self.learner = learner
        self.witness = witness
        self.steps, self.per_epoch = steps, per_epoch
        self.every = max(1, steps // LOGS)
        self.layers = learner.plasticity.layers
        self.names = [layer.name.removeprefix("body.") for layer in self.layers]
        self.first = [layer.weight.clone() for layer in self.layers]
        self.sums = [layer.weight.new_zeros(layer.weight.shape[0], dtype=torch.float64) for layer in self.layers]
        self.signs = [torch.zeros_like(weight, dtype=torch.float32) for weight in learner.plasticity.weights()]
        self.seen = [0 for _ in self.layers]
        self.curves: dict[str, Points] = {}
        self.post: dict[str, Points] = {}  # of alignment with ⟨f(u) xᵀ⟩, by layer
        self.firing: Firing | None = None
        if witness is not None:
            self._hebb_post: dict[int, Tensor] = {}
            Activity([witness.model.body, witness.model.head], witness.layers, self._take)
        self.training_seconds = 0.0
        self.probe_seconds = 0.0

    @property
    def seconds(self) -> float:
        """What the diagnostics have cost so far."""
        return self.training_seconds + self.probe_seconds

    def see(self, number: int, x: Tensor, labels: Tensor) -> None:
        """Take in step `number`; its updates stand in `weight.grad`, its batch was `x` (N, …) with `labels` (N,)."""
        began = time.perf_counter()
        for index, layer in enumerate(self.layers):
            gradient = layer.module.weight.grad
            if gradient is not None:
                self.sums[index] += step_size(weight_rows(gradient))
                if self.signs:
                    self.signs[index] += gradient.sign()  # of −Δw, whose mean is as far from 0
                self.seen[index] += 1
        if number == 0 or (number + 1) % self.every == 0 or number + 1 == self.steps:
            if self.learner.device.type == "cuda":
                torch.cuda.synchronize(self.learner.device)
                began = time.perf_counter()  # what the device still had to do belongs to training
            self._log((number + 1) / self.per_epoch, x, labels, number)
        self.training_seconds += time.perf_counter() - began

    def _log(self, epoch: float, x: Tensor, labels: Tensor, number: int) -> None:
        for index, (name, layer) in enumerate(zip(self.names, self.layers, strict=True)):
            if layer.module.weight.grad is None:
                continue
            self._point(f"gini.{name}", epoch, gini(self.sums[index] / self.seen[index]))
            self._point(f"weight_norm.{name}", epoch, weight_norms(layer.weight).mean)
        if self.witness is not None:
            for index, kind, value in self.witness.compare(self.learner, x, labels, number):
                self._point(f"{kind}.{self.names[index]}", epoch, value)
            for index, (name, layer) in enumerate(zip(self.names, self.layers, strict=True)):
                plain = self._hebb_post.pop(index)
                if layer.module.weight.grad is not None:
                    post = cosine(self.witness.last[index][0], plain)
                    self.post.setdefault(name, []).extend([] if post is None else [(epoch, post)])

    def _take(self, index: int, x: Tensor, u: Tensor, y: Tensor) -> None:
        """⟨f(u) xᵀ⟩ of a layer of the witness, as it repeats the batch."""
        plain = hebb(y, pre_of(x, u, self.layers[index].module))
        self._hebb_post[index] = self.learner.world.mean(plain)

    def _point(self, curve: str, epoch: float, value: float | None) -> None:
        if value is not None:
            self.curves.setdefault(DIAGNOSTICS + curve, []).append((epoch, value))

    def training_metrics(self, epoch: int) -> dict[str, Metric]:
        """What is known when training is over, by name. Without a step there is nothing to say of updates.

        From now on until `feature_metrics` the layers' activity is looked at, too, whatever the network is shown.
        """
        if self.learner.procedure is None or not self.learner.procedure.settles:
            body, world = self.learner.model.body, self.learner.world
            self.firing = Firing(body, [layer.module for layer in self.layers], world, SAMPLES)
        found: dict[str, Metric] = {}
        for index, (name, layer) in enumerate(zip(self.names, self.layers, strict=True)):
            norms = weight_norms(layer.weight)
            values: dict[str, float | None] = {
                f"weight_norm.{name}.mean": norms.mean,
                f"weight_norm.{name}.sd": norms.sd,
                f"weight_norm.{name}.max": norms.max,
                f"dead.weight.{name}": weight_dead(self.first[index], layer.weight),
            }
            if self.seen[index]:
                curve = self.curves.get(f"{DIAGNOSTICS}gini.{name}", [])
                values[f"gini.{name}.start"] = curve[0][1] if curve else None
                values[f"gini.{name}.end"] = gini(self.sums[index])
                values[f"dead.update.{name}"] = update_dead(self.sums[index])
            for key, value in values.items():
                found[DIAGNOSTICS + key] = _metric(value, "train", epoch, "no weight of the layer was ever updated")
            if self.seen[index]:
                found |= self._directions(index, name, epoch)
        return found

    def _directions(self, index: int, name: str, epoch: int) -> dict[str, Metric]:
        """How a layer's updates lay to each other and to Hebb's and the gradient's, by name."""
        consistency = sign_consistency(self.signs[index], self.seen[index]) if self.signs else None
        reason = "the cell went on from a checkpoint of a version that kept no signs"
        found = {f"sign_consistency.{name}": _metric(consistency, "train", epoch, reason)}
        if self.witness is not None:
            kinds = GRADIENT if self.learner.trains_readout else ()
            curves = {f"{kind}.{name}": self.curves.get(f"{DIAGNOSTICS}{kind}.{name}", []) for kind in (HEBB, *kinds)}
            curves[f"{HEBB}.{name}.post"] = self.post.get(name, [])
            reason = "an update, or what it is compared with, was zero: there is no angle"
            found |= {key: _metric(at_last(points), "train", epoch, reason) for key, points in curves.items()}
        return {DIAGNOSTICS + key: metric for key, metric in found.items()}

    def feature_metrics(self, features: Tensor, epoch: int) -> dict[str, Metric]:
        """Of the frozen body's output on the validation split, (n, F), the last thing that it was shown."""
        began = time.perf_counter()
        firing, self.firing = self.firing, None
        if firing is not None:
            firing.stop()
        if not len(features):
            return {}
        y = features[:SAMPLES]
        stride = -(-y.shape[1] // UNITS)
        values = {
            "correlation.features": neuron_correlation(y[:, ::stride]),
            "dead.activation.features": activation_dead(y),
            "dead.win.features": win_dead(y),
        }
        found = {key: _metric(value, "validation", epoch, "no feature varies") for key, value in values.items()}
        found["effective_rank.features"] = _rank(features, epoch)
        dead = {} if firing is None else firing.dead(len(features))
        reason = "the network answers in a way of its own, not by a pass through its body"
        if firing is not None:
            self.probe_seconds += firing.seconds
            reason = "the layer is not in the body, whose pass the features come from"
        for index, name in enumerate(self.names):
            for kind, value in zip(("activation", "win"), dead.get(index, (None, None)), strict=True):
                found[f"dead.{kind}.{name}"] = _metric(value, "validation", epoch, reason)
        self.probe_seconds += time.perf_counter() - began
        found["seconds"] = _metric(self.seconds, "validation", epoch, "")
        return {DIAGNOSTICS + key: metric for key, metric in found.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything a later process needs to go on."""
        return {
            "first": self.first,
            "sums": self.sums,
            "signs": self.signs,
            "seen": self.seen,
            "curves": self.curves,
            "post": self.post,
            "seconds": self.training_seconds,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for mine, theirs in zip((*self.first, *self.sums), (*saved["first"], *saved["sums"]), strict=True):
            mine.copy_(theirs)
        # A checkpoint of an earlier version holds neither signs nor post-activation alignment.
        self.signs = [mine.copy_(theirs) for mine, theirs in zip(self.signs, saved.get("signs", []), strict=False)]
        self.seen = list(saved["seen"])
        self.curves, self.post = _points(saved["curves"]), _points(saved.get("post", {}))
        self.training_seconds = saved["seconds"]


def at_last(points: Points) -> float | None:
    """The mean of a curve's values over the last tenth of what it spans; None of a curve without points."""
    if not points:
        return None
    begin, end = points[0][0], points[-1][0]
    return fmean(value for x, value in points if x >= end - (end - begin) / 10)


def _rank(features: Tensor, epoch: int) -> Metric:
    """The effective rank of features (n, F) on as many samples as it takes, or why it cannot be had."""
    samples, width = features.shape
    needed = PER_FEATURE * width
    value, reason = None, f"{width} features need {needed} samples, {PER_FEATURE} each, and the split has {samples}"
    if needed <= samples:
        reason = f"{width} features on {needed} samples, {PER_FEATURE} each, are more than {NUMBERS} numbers to hold"
        if needed * width <= NUMBERS:
            value, reason = effective_rank(features[: max(SAMPLES, needed)]), "no feature varies"
    return _metric(value, "validation", epoch, reason)


def _points(saved: dict[str, Points]) -> dict[str, Points]:
    return {name: [(x, y) for x, y in points] for name, points in saved.items()}


def _metric(value: float | None, split: str, epoch: int, reason: str) -> Metric:
    return Metric(value=value, split=split, epoch=epoch, reason=reason if value is None else None)  # type: ignore[arg-type]
