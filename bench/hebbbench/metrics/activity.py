"""A layer's activity, seen as a network runs: what the activation behind the layer makes of its potential."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from hebbbench.plasticity.chain import LINEAR, NORMALISING

PASSED_BY = (*NORMALISING, _DropoutNd, nn.Identity, nn.Sequential)
"""What may stand between a layer and its activation; a sequence without modules is a shortcut's."""

Take = Callable[[int, Tensor, Tensor, Tensor], None]
"""Given a layer's index, its input x (N, …), its output u and its activity y as rows (B, out), detached."""


class Activity:
    """Looks on as a network runs, and changes nothing in it.

    y is the output of the first module behind a layer that has no parts and no weights, is neither a normalisation nor
    dropout, and keeps the shape: the activation, with a batch norm or a shortcut in front of it if there is one. Where
    the next linear map, a change of shape or the end comes before any, y is u. Rows are samples × positions.

    Args:
        parts: of the network, run one after the other.
        layers: whose activity is wanted.
        take: called once a layer and pass, as soon as y is there.
    """

    def __init__(self, parts: Sequence[nn.Module], layers: Sequence[nn.Module], take: Take) -> None:
        self._take = take
        self._open: tuple[int, Tensor, Tensor] | None = None
        self._handles = []
        indices = {id(layer): index for index, layer in enumerate(layers)}
        for module in (module for part in parts for module in part.modules()):
            if isinstance(module, LINEAR):
                self._handles.append(module.register_forward_pre_hook(self._end))
            elif not isinstance(module, PASSED_BY) and not [*module.children(), *module.parameters()]:
                self._handles.append(module.register_forward_hook(self._fire))
            if id(module) in indices:
                self._handles.append(module.register_forward_hook(partial(self._begin, indices[id(module)])))
        self._handles.extend(part.register_forward_hook(self._end) for part in parts)

    def remove(self) -> None:
        """Look no more."""
        for handle in self._handles:
            handle.remove()

    def _begin(self, index: int, _layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._open = index, inputs[0].detach(), output.detach()

    def _fire(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        kept = self._open is not None and isinstance(output, Tensor) and output.shape == self._open[2].shape
        self._close(output.detach() if kept else None)

    def _end(self, *_: Any) -> None:
        self._close(None)

    @torch.no_grad()
    def _close(self, y: Tensor | None) -> None:
        if self._open is not None:
            index, x, u = self._open
            self._open = None
            self._take(index, x, u, activity_rows(u if y is None else y))


def activity_rows(y: Tensor) -> Tensor:
    """A layer's activity (N, …, units), or (N, channels, height, width), as rows (B, out)."""
    return (y.permute(0, 2, 3, 1) if y.dim() == 4 else y).flatten(0, -2)
