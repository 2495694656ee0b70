"""What a rule is given, changes and builds, one call at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from hebbbench.plasticity.rule import Rule
from hebbbench.plasticity.signals import LinearPre, Pre
from hebbbench.rng import seed_torch


@dataclass
class Call:
    """One call of a rule's `delta`: copies of what it was given, and what was seen while it ran."""

    layer: int
    number: int
    signals: dict[str, Any]
    delta: Tensor
    touched: list[str]
    built_graph: bool


class Spy:
    """Stands in a rule's place: seeds its draws, and notes what it was given, changed and built."""

    def __init__(self, rule: Rule, layer: int, calls: list[Call]) -> None:
        self._rule, self._layer, self._calls = rule, layer, calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rule, name)

    def delta(self, **signals: Any) -> Any:
        given = copied(signals)
        number = sum(call.layer == self._layer for call in self._calls)
        saved = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal saved
            saved += 1
            return tensor

        seed_draws(self._layer, number)
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            delta: Any = self._rule.delta(**signals)
        if not isinstance(delta, Tensor):
            return delta  # refused where it is used
        taught = self._rule.shape == "loss"  # its slope is taken here, within the layer
        kept = (value.requires_grad for value in signals.get("state", {}).values())
        graph = (saved > 0 and not taught) or delta.requires_grad or any(kept)
        touched = [
            name for name in signals if name != "state" and not torch.equal(dense(signals[name]), dense(given[name]))
        ]
        self._calls.append(Call(self._layer, number, given, delta.detach().clone(), touched, graph))
        return delta


def seed_draws(layer: int, number: int) -> None:
    """Seed torch's global generator for one call of a rule."""
    seed_torch(1000 * number + layer)


def dense(signal: Any) -> Tensor:
    """A signal as a tensor: `pre` as its rows."""
    return signal if isinstance(signal, Tensor) else cast(Pre, signal).rows


def copied(signals: dict[str, Any]) -> dict[str, Any]:
    """Signals that share no memory with those given; `pre` is dense."""
    result: dict[str, Any] = {}
    for name, value in signals.items():
        if name == "state":
            result[name] = {key: inner.detach().clone() for key, inner in value.items()}
        elif isinstance(value, Tensor):
            result[name] = value.detach().clone()
        else:
            result[name] = LinearPre(value.rows.detach().clone())
    return result
