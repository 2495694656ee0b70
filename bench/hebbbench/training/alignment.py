"""Measuring a learner's Hebbian alignment: at the last steps of training, and over all training data behind it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean, pstdev
from typing import Any

import torch
from torch import Tensor, nn

from hebbbench.metrics.activity import activity_rows
from hebbbench.metrics.alignment import cosines, hebbian
from hebbbench.plasticity.signals import post_rows, pre_of, weight_rows
from hebbbench.protocol import SGD
from hebbbench.rng import torch_seeded
from hebbbench.training.features import statistics_kept
from hebbbench.training.learner import Learner
from hebbbench.training.network import activations
from hebbbench.training.witness import Witness

COLLAPSED = 0.1
"""A layer whose weights have less than this part of the norm they started from has collapsed …"""
ANSWERS = 0.5
"""… unless the training loss is below this part of that of always answering zero."""

KINDS = ("pre", "post", "sgd")
POINTS = 50
"""Points on a curve over all of training."""
PASS = 1000
"""Samples in one batch of the pass over all training data."""

Cosines = dict[str, Tensor]
"""Layer name, with `.post` for the post-activation variant and `.sgd` for gradient descent's step, → cosine."""


class AlignmentMeter:
    """Looks at each plastic layer of a learner during a step, between the rule's update and the optimizer.

    Args:
        window: the last steps that are measured; total: steps of the whole training; per_epoch: of one epoch.
        witness: tells gradient descent's step, which is then compared with in every step of the training; curves have
            the mean and the standard deviation over the last `window` steps.
    """

    def __init__(
        self, learner: Learner, window: int, total: int, per_epoch: int = 1, witness: Witness | None = None
    ) -> None:
        self.learner = learner
        self.witness = witness
        self.first, self.total, self.per_epoch = max(0, total - window), total, per_epoch
        self.recent: deque[dict[str, float]] = deque(maxlen=window)
        self.curves: dict[str, list[tuple[float, float]]] = {}
        self.number = 0
        self.count = 0
        self.sums: dict[str, float] = {}
        self.watching = False
        self._rows: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self._functions = activations(learner.model)
        self.norms = {layer.name: layer.weight.norm().item() for layer in learner.plasticity.layers}
        for layer in learner.plasticity.layers:
            layer.module.register_forward_hook(self._watch(layer.name))

    def _watch(self, name: str) -> Any:
        def hook(module: nn.Linear | nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if self.watching:
                with torch.no_grad():
                    x = pre_of(inputs[0].detach(), output, module).rows
                    y = self._functions[name](output.detach())
                    self._rows[name] = x, post_rows(output.detach(), module), activity_rows(y)

        return hook

    def begin(self, step: int) -> None:
        """Before the pass of a step."""
        self.number = step
        self.watching = step >= self.first or self.witness is not None

    def end(self, x: Tensor, targets: Tensor) -> None:
        """After the pass, before the optimizer: take the step's cosines in, if it is one that is measured."""
        if not self.watching:
            return
        found = {name: value.item() for name, value in self.compare(*self.taken(x, targets)).items()}
        self.watching = False
        if self.number >= self.first:
            self.add(found)
        if self.witness is not None:
            self._follow({name: value for name, value in found.items() if name.endswith(SGD)})

    def _follow(self, found: dict[str, float]) -> None:
        """Put the rolling mean and standard deviation on the curves, now and then."""
        self.recent.append(found)
        done = self.number + 1
        if done % max(1, self.total // POINTS) and done != self.total:
            return
        for name in found:
            values = [step[name] for step in self.recent if math.isfinite(step[name])]
            if not values:
                continue
            for curve, value in ((name, fmean(values)), (f"{name}.sd", pstdev(values))):
                self.curves.setdefault(f"alignment.{curve}", []).append((done / self.per_epoch, value))

    def add(self, found: dict[str, float]) -> None:
        """Take one step's cosines in, by layer and kind."""
        for name, value in found.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def taken(self, x: Tensor, targets: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What the last watched pass, of this batch, left: updates by layer, and what they are compared with by layer
        and kind."""
        updates, others = {}, {}
        descents = [] if self.witness is None else self.witness.descent(self.learner, x, targets, self.number)
        for index, layer in enumerate(self.learner.plasticity.layers):
            gradient = layer.module.weight.grad
            if gradient is None or layer.name not in self._rows:
                continue
            inputs, u, y = self._rows.pop(layer.name)
            name = short(layer.name)
            updates[name] = -weight_rows(gradient)
            others[f"{name}.pre"] = hebbian(u, inputs)
            others[f"{name}.post"] = hebbian(y, inputs)
            if descents:
                others[f"{name}{SGD}"] = descents[index]
        return updates, others

    @staticmethod
    def compare(updates: dict[str, Tensor], others: dict[str, Tensor]) -> Cosines:
        """The cosines of updates with others, as `taken` gave them."""
        return {
            name if kind == "pre" else f"{name}.{kind}": cosines(update, others[f"{name}.{kind}"])
            for name, update in updates.items()
            for kind in KINDS
            if f"{name}.{kind}" in others
        }

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within this context every pass is watched, whatever its step."""
        self.watching = True
        try:
            yield
        finally:
            self.watching = False
            self._rows.clear()

    def collapsed(self) -> dict[str, str]:
        """Why there is no sense in a layer's cosine, by the layer's short name, where its weights have collapsed."""
        shrunk = {
            short(layer.name): layer.weight.norm().item() / self.norms[layer.name]
            for layer in self.learner.plasticity.layers
        }
        return {
            name: f"collapsed: the weights have {part:.2g} of the norm they started from"
            for name, part in shrunk.items()
            if part < COLLAPSED
        }

    def means(self) -> dict[str, float]:
        """The mean over the measured steps, by layer and kind."""
        return {name: value / self.count for name, value in self.sums.items()} if self.count else {}

    def state_dict(self) -> dict[str, Any]:
        """What a later process needs to go on."""
        saved: dict[str, Any] = {"count": self.count, "sums": self.sums}
        return saved if self.witness is None else {**saved, "recent": list(self.recent), "curves": self.curves}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.count, self.sums = saved["count"], dict(saved["sums"])
        if self.witness is not None:
            self.recent.extend(saved["recent"])
            self.curves = {name: [(x, y) for x, y in points] for name, points in saved["curves"].items()}


def full_data(meter: AlignmentMeter, batches: Any, indices: Tensor) -> dict[str, float]:
    """cos(⟨g⟩, ⟨a xᵀ⟩) with both means over the indexed samples, at the weights as they are; nothing is changed.

    For a rule that is not linear in the samples, ⟨g⟩ is the mean of its updates from batches of `PASS`.
    """
    learner = meter.learner
    states = [{key: value.clone() for key, value in layer.state.items()} for layer in learner.plasticity.layers]
    sums: dict[str, Tensor] = {}
    names: list[str] = []
    with statistics_kept(learner), torch_seeded(learner.seed, "alignment over all data"):
        for part in indices.split(PASS):
            x, targets = batches.plain(part)
            with meter.watched():
                learner.find_update(x, targets)
                updates, others = meter.taken(x, targets)
            names = list(updates)
            for name, value in {**updates, **others}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value * (len(part) / len(indices))
    for layer, state in zip(learner.plasticity.layers, states, strict=True):
        for key, value in state.items():
            layer.state[key].copy_(value)
    compared = meter.compare({name: sums[name] for name in names}, sums)
    return {f"{name}.full": value.item() for name, value in compared.items()}


def layer_of(metric: str) -> str:
    """The short name of the layer that a cosine, as `means` and `full_data` name it, is of."""
    for ending in (".full", *(f".{kind}" for kind in KINDS)):
        metric = metric.removesuffix(ending)
    return metric


def short(layer: str) -> str:
    """A layer's name in a metric: without the leading `body.`."""
    return layer.removeprefix("body.")
