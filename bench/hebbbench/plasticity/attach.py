"""Where rules meet a network: hooks let each plastic layer watch its own traffic, and say when it asks its rule.

A layer's update is formed as soon as its last signal is there: in the forward pass if the rule is local, in the
backward pass the moment the layer's gradient arrives, after the forward pass if it needs the output error. How it is
formed is the layer's own affair (see `layer`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from hebbbench.plasticity.layer import PlasticLayer
from hebbbench.plasticity.recompute import will_run_again
from hebbbench.plasticity.rule import Rule, per_layer
from hebbbench.plasticity.select import select
from hebbbench.plasticity.signals import weight_like
from hebbbench.world import ALONE, World


class PassEnded(Exception):
    """Raised inside a forward pass after the last layer that has anything to learn; nothing later is computed."""


class Plasticity:
    """All plastic layers of a network, in the order of its modules.

    Args:
        model: the network; in-place activations are switched off, because they would overwrite a potential.
        patterns: which layers are plastic, see `select`.
        rule: the rule's class; `hyperparameters` may hold lists, one value a layer.
        world: which processes a batch is divided over; whole: whether the rule is shown all processes' rows.
        products: precision of the rule's outer products; that of each layer's own if None.

    Raises:
        ProtocolError: a pattern matches no module.
        RuleError: a matched layer cannot be governed by a rule, or a hyper-parameter is wrong.
    """

    def __init__(
        self,
        model: nn.Module,
        patterns: list[str],
        rule: type[Rule],
        hyperparameters: dict[str, Any],
        world: World = ALONE,
        whole: bool = False,
        products: torch.dtype | None = None,
    ) -> None:
        chosen = select(model, patterns)
        rules = per_layer(rule, hyperparameters, list(chosen))
        self.layers = [
            PlasticLayer(name, module, layer_rule, world, whole, products)
            for (name, module), layer_rule in zip(chosen.items(), rules, strict=True)
        ]
        self.world = world
        self._rows = world.rows if whole else lambda rows: rows
        self.moment = _moment(rule)
        self.constrained = rule.constrain is not Rule.constrain
        self.wants_error = "error" in rule.signals
        self.wants_input = "input" in rule.signals
        self._learning: set[int] | None = None
        self._awaited: set[int] = set()
        self._outside: dict[str, Tensor] = {}
        for module in model.modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]
        if self.moment == "network":
            return
        for index, layer in enumerate(self.layers):
            layer.module.register_forward_hook(self._watch(index))
            if self.moment == "backward":
                layer.module.weight.register_post_accumulate_grad_hook(self._on_gradient(index))

    def _watch(self, index: int) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if self._learning is None or index not in self._learning:
                return
            if self.moment == "backward" and will_run_again():
                return
            self.layers[index].observe(inputs[0], output)
            if self.moment == "backward":
                self.layers[index].begin(**self._outside)
            if self.moment == "forward":
                self.layers[index].learn(**self._outside)
                if self._awaited:
                    self._awaited.discard(index)
                    if not self._awaited:
                        raise PassEnded

        return hook

    def _on_gradient(self, index: int) -> Any:
        def hook(weight: Tensor) -> None:
            if self._learning is None or weight.grad is None:
                return
            if index in self._learning:
                self.world.sum_in_place([weight.grad])
                self.layers[index].learn(grad=weight.grad, **self._outside)
            else:
                weight.grad = None  # a frozen plastic layer follows neither the rule nor the gradient

        return hook

    @contextmanager
    def learning(
        self, labels: Tensor, x: Tensor | None = None, only: int | None = None, stop_after_last: bool = False
    ) -> Iterator[None]:
        """Within this context a pass through the network leaves each learning layer's update in `weight.grad`.

        Args:
            labels: class indices (N,), shown to rules that ask for them.
            x: the network's input (N, …), shown as rows to rules that ask for `input`.
            only: index of the single layer that learns (layerwise schedules); all learn if None.
            stop_after_last: end a local rule's forward pass after the last learning layer.
        """
        self._learning = set(range(len(self.layers))) if only is None else {only}
        self._awaited = set(self._learning) if stop_after_last else set()
        self._outside = {"labels": self._rows(labels)}
        if self.wants_input and x is not None:
            rows = x.detach().flatten(1)
            rows = rows if rows.is_floating_point() else rows.float()  # tokens, as numbers
            self._outside["input"] = self._rows(rows)
        try:
            yield
        except PassEnded:
            pass
        finally:
            self._learning, self._awaited, self._outside = None, set(), {}
            for layer in self.layers:
                layer.forget()

    def on_error(self, error: Tensor) -> None:
        """Hand the output error (N, classes) to rules that ask for it; within `learning`, before the backward pass."""
        self._outside["error"] = self._rows(error)
        if self.moment == "output":
            for index in sorted(self._learning or ()):
                self.layers[index].learn(**self._outside)

    @torch.no_grad()
    def constrain(self, only: int | None = None) -> None:
        """Lay each rule's constraint on its weight; call after the optimizer's step.

        Args:
            only: index of the single layer that learned; all if None.
        """
        if not self.constrained:
            return
        for layer in self.layers if only is None else [self.layers[only]]:
            weight = layer.module.weight
            weight.copy_(weight_like(layer.constrained(), weight))

    def weights(self) -> list[nn.Parameter]:
        """The plastic weights, in layer order."""
        return [cast(nn.Parameter, layer.module.weight) for layer in self.layers]

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """The rules' own tensors by layer name."""
        return {layer.name: layer.state for layer in self.layers}

    def load_state_dict(self, saved: dict[str, dict[str, Tensor]]) -> None:
        """Take back what `state_dict` gave."""
        for layer in self.layers:
            for name, value in saved[layer.name].items():
                layer.state[name].copy_(value)


def _moment(rule: type[Rule]) -> str:
    """When a layer's update is formed: `network` leaves it to the whole-network procedure."""
    if rule.shape == "step":
        return "network"
    return "backward" if "grad" in rule.signals else "output" if "error" in rule.signals else "forward"
