"""Diagnostics: what a run shows of its learning dynamics, beside its accuracy. Off unless asked for.

The observer looks at each layer's update as the rule left it, before the optimizer takes the step, and at the frozen
features. It draws nothing, changes nothing that training reads, and keeps to names that begin with `diagnostics.`, so
a cell measures the same with it and without.

    every step        ā_k, the running mean of each unit's step size ‖Δw_k‖, at learning rate 1
    at LOGS moments   Gini of ā, mean ‖w_k‖, alignment and sign agreement of Δw          curves over epochs
    at the end        units dead by update and by weight, norms                          metrics
    at the read-out   effective rank, correlation, units dead by activity and by wins    on the validation split
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from hebbbench.metrics.correlation import neuron_correlation
from hebbbench.metrics.gini import gini, step_size
from hebbbench.metrics.norms import weight_norms
from hebbbench.metrics.rank import effective_rank
from hebbbench.metrics.units import activation_dead, update_dead, weight_dead, win_dead
from hebbbench.plasticity.signals import weight_rows
from hebbbench.record.schema import DIAGNOSTICS, Metric
from hebbbench.training.learner import Learner
from hebbbench.training.witness import Witness

LOGS = 50
"""Points on each curve, beside the one after the first step."""

SAMPLES = 5000
"""Validation samples whose features are looked at, at most."""

UNITS = 2048
"""Features that are correlated with each other, at most; evenly spaced where there are more."""


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
        self.seen = [0 for _ in self.layers]
        self.curves: dict[str, list[tuple[float, float]]] = {}
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

    def _point(self, curve: str, epoch: float, value: float | None) -> None:
        if value is not None:
            self.curves.setdefault(DIAGNOSTICS + curve, []).append((epoch, value))

    def training_metrics(self, epoch: int) -> dict[str, Metric]:
        """What is known when training is over, by name. Without a step there is nothing to say of updates."""
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
        return found

    def feature_metrics(self, features: Tensor, epoch: int) -> dict[str, Metric]:
        """Of the frozen body's output on the validation split, (n, F); at most SAMPLES rows are looked at."""
        if not len(features):
            return {}
        began = time.perf_counter()
        y = features[:SAMPLES]
        stride = -(-y.shape[1] // UNITS)
        values = {
            "effective_rank.features": effective_rank(y),
            "correlation.features": neuron_correlation(y[:, ::stride]),
            "dead.activation.features": activation_dead(y),
            "dead.win.features": win_dead(y),
        }
        self.probe_seconds += time.perf_counter() - began
        values["seconds"] = self.seconds
        return {
            DIAGNOSTICS + key: _metric(value, "validation", epoch, "no feature varies") for key, value in values.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything a later process needs to go on."""
        return {
            "first": self.first,
            "sums": self.sums,
            "seen": self.seen,
            "curves": self.curves,
            "seconds": self.training_seconds,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for mine, theirs in zip((*self.first, *self.sums), (*saved["first"], *saved["sums"]), strict=True):
            mine.copy_(theirs)
        self.seen = list(saved["seen"])
        self.curves = {name: [(x, y) for x, y in points] for name, points in saved["curves"].items()}
        self.training_seconds = saved["seconds"]


def _metric(value: float | None, split: str, epoch: int, reason: str) -> Metric:
    return Metric(value=value, split=split, epoch=epoch, reason=reason if value is None else None)  # type: ignore[arg-type]
