"""A penalty on activity: a term of the loss that keeps units quiet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hebbbench.training.network import activations


class Penalty:
    """weight · Σ_l ⟨|f(u)|⟩, the mean over samples and units of each layer's activity, summed over layers l.

    Args:
        model: whose passes in training mode are looked at.
        layers: names of linear or convolutional modules; their activity is what the activation behind them makes.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], weight: float) -> None:
        self.weight = weight
        self._terms: list[Tensor] = []
        modules, functions = dict(model.named_modules()), activations(model)
        for name in layers:
            follows = functions[name]
            (follows if follows in modules.values() else modules[name]).register_forward_hook(self._add)

    def _add(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if module.training:
            self._terms.append(output.abs().mean())

    def take(self) -> Tensor:
        """The penalty of the last pass, a scalar with its graph."""
        total, self._terms = torch.stack(self._terms).sum(), []
        return self.weight * total
