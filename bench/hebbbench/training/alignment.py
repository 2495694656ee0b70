"""Measuring a learner's Hebbian alignment: at the last steps of training, and over all training data behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hebbbench.metrics.alignment import cosines, hebbian
from hebbbench.plasticity.signals import post_rows, pre_of, weight_rows
from hebbbench.training.learner import Learner

COLLAPSED = 0.1
"""A layer whose weights have less than this part of the norm they started from has collapsed."""

KINDS = ("pre", "post")
ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.ELU, nn.SiLU, nn.LeakyReLU)
PASS = 1000
"""Samples in one batch of the pass over all training data."""

Cosines = dict[str, Tensor]
"""Layer name, with `.post` for the post-activation variant, → cosine."""


class AlignmentMeter:
    """Looks at each plastic layer of a learner during a step, between the rule's update and the optimizer.

    Args:
        window: the last steps that are measured; total: steps of the whole training.
    """

    def __init__(self, learner: Learner, window: int, total: int) -> None:
        self.learner = learner
        self.first = max(0, total - window)
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
        self.watching = step >= self.first

    def end(self) -> None:
        """After the pass, before the optimizer: take the step's cosines in, if it is one of the last."""
        if self.watching:
            self.add({name: value.item() for name, value in self.compare(*self.taken()).items()})
            self.watching = False

    def add(self, found: dict[str, float]) -> None:
        """Take one step's cosines in, by layer and kind."""
        for name, value in found.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def taken(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What the last watched pass left: updates by layer, and Hebbian updates by layer and kind."""
        updates, hebb = {}, {}
        for layer in self.learner.plasticity.layers:
            gradient = layer.module.weight.grad
            if gradient is None or layer.name not in self._rows:
                continue
            x, u, y = self._rows.pop(layer.name)
            name = short(layer.name)
            updates[name] = -weight_rows(gradient)
            hebb[f"{name}.pre"] = hebbian(u, x)
            hebb[f"{name}.post"] = hebbian(y, x)
        return updates, hebb

    @staticmethod
    def compare(updates: dict[str, Tensor], hebb: dict[str, Tensor]) -> Cosines:
        """The cosines of updates with Hebbian updates, as `taken` gave them."""
        return {
            name if kind == "pre" else f"{name}.{kind}": cosines(update, hebb[f"{name}.{kind}"])
            for name, update in updates.items()
            for kind in KINDS
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
        return {"count": self.count, "sums": self.sums}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.count, self.sums = saved["count"], dict(saved["sums"])


def full_data(meter: AlignmentMeter, batches: Any, indices: Tensor) -> dict[str, float]:
    """cos(⟨g⟩, ⟨a xᵀ⟩) with both means over the indexed samples, at the weights as they are; nothing is changed.

    For a rule that is not linear in the samples, ⟨g⟩ is the mean of its updates from batches of `PASS`.
    """
    learner = meter.learner
    states = [{key: value.clone() for key, value in layer.state.items()} for layer in learner.plasticity.layers]
    sums: dict[str, Tensor] = {}
    names: list[str] = []
    for part in indices.split(PASS):
        x, targets = batches.plain(part)
        with meter.watched():
            learner.find_update(x, targets)
            updates, hebb = meter.taken()
        names = list(updates)
        for name, value in {**updates, **hebb}.items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value * (len(part) / len(indices))
    for layer, state in zip(learner.plasticity.layers, states, strict=True):
        for key, value in state.items():
            layer.state[key].copy_(value)
    compared = meter.compare({name: sums[name] for name in names}, sums)
    return {f"{name}.full": value.item() for name, value in compared.items()}


def activations(model: nn.Module) -> dict[str, nn.Module]:
    """Each linear or convolutional layer's name → the activation that comes next in the order of modules, if any."""
    found: dict[str, nn.Module] = {}
    last = ""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            last = name
            found[name] = nn.Identity()
        elif isinstance(module, ACTIVATIONS) and last:
            found[last] = module
            last = ""
    return found


def activity_rows(y: Tensor) -> Tensor:
    """A layer's activity (N, …, units), or (N, channels, height, width), as rows (B, out)."""
    return (y.permute(0, 2, 3, 1) if y.dim() == 4 else y).flatten(0, -2)


def short(layer: str) -> str:
    """A layer's name in a metric: without the leading `body.`."""
    return layer.removeprefix("body.")
