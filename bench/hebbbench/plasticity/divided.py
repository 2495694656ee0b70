"""A batch divided over processes, as layers meet it: what depends on all samples is found on all of them.

Two modules of a network do: batch normalisation, whose statistics are those of the whole batch, forward and backward,
and dropout, whose mask is drawn for the whole batch. And a rule does. It is shown its process's rows, and the terms
that it calls reduce (`SharedPre`); or, if its equation holds a statistic of the batch that no term reduces, it is shown
the rows of the whole batch, and only outer products are divided (`WholePre`). Which of the two is measured
(hebbbench/checks/shares.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hebbbench.errors import ProtocolError
from hebbbench.plasticity.signals import Pre
from hebbbench.world import World

Forward = Callable[[Tensor], Tensor]


class SharedPre:
    """Presynaptic activity whose rows are this process's, and whose outer product is the mean over all rows."""

    def __init__(self, own: Pre, world: World) -> None:
        self._own = own
        self._world = world

    @property
    def rows(self) -> Tensor:
        return self._own.rows

    @property
    def count(self) -> int:
        return self._own.count

    @property
    def channels(self) -> int:
        return self._own.channels

    @property
    def squared_norm(self) -> Tensor:
        return self._own.squared_norm

    def outer(self, a: Tensor) -> Tensor:
        return self._world.mean(self._own.outer(a))

    def potential(self, weight: Tensor) -> Tensor:
        return self._own.potential(weight)


class WholePre:
    """Presynaptic activity of the whole batch; each process forms the outer product of its own rows."""

    def __init__(self, own: Pre, world: World) -> None:
        assert world.share is not None
        self._own = own
        self._world = world
        self._each = own.count // world.share.count
        self._first = world.share.start * self._each
        self.count = world.share.total * self._each
        self.channels = own.channels

    @property
    def rows(self) -> Tensor:
        return self._world.rows(self._own.rows)

    @property
    def squared_norm(self) -> Tensor:
        return self._world.rows(self._own.squared_norm)

    def outer(self, a: Tensor) -> Tensor:
        return self._world.mean(self._own.outer(a[self._first : self._first + self._own.count]))

    def potential(self, weight: Tensor) -> Tensor:
        return self._world.rows(self._own.potential(weight))


def divide(model: nn.Module, world: World) -> None:
    """Have the modules of a network that look at, or draw for, a whole batch do so when it is divided."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.forward = partial(_normalised, module, world, module.forward)  # type: ignore[method-assign]
        elif isinstance(module, nn.AlphaDropout | nn.FeatureAlphaDropout):
            raise ProtocolError(
                "the network drops out by AlphaDropout, whose mask cannot be divided over processes. Run it in one."
            )
        elif isinstance(module, nn.modules.dropout._DropoutNd) or getattr(module, "drop_prob", None):
            module.forward = partial(_dropped, module, world, module.forward)


def _normalised(norm: Any, world: World, alone: Forward, x: Tensor) -> Tensor:
    """Batch normalisation of this process's samples by the statistics of all processes' samples."""
    if world.share is None or not (norm.training or norm.running_mean is None):
        return alone(x)
    h = x if x.dtype == torch.float64 else x.float()
    dims = [0, *range(2, x.dim())]
    shape = [1, -1] + [1] * (x.dim() - 2)
    count = x.numel() // x.shape[1] // world.share.count * world.share.total
    mean = _Sum.apply(h.sum(dims), world) / count
    centred = h - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(dims), world) / count
    y = centred * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        y = y * norm.weight.view(shape) + norm.bias.view(shape)
    if norm.training and norm.running_mean is not None:
        _remember(norm, mean.detach(), variance.detach() * (count / (count - 1)))
    normalised: Tensor = y.to(x.dtype)
    return normalised


@torch.no_grad()
def _remember(norm: Any, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics on as torch does: by the momentum, or to the plain average where there is none."""
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    rate = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean), rate)
    norm.running_var.lerp_(variance.to(norm.running_var), rate)


def _dropped(module: nn.Module, world: World, alone: Forward, x: Tensor) -> Tensor:
    """Dropout of this process's samples by the mask of the whole batch."""
    if world.share is None or not module.training:
        return alone(x)
    whole = torch.ones_like(x[:1]).expand(world.share.total, *x.shape[1:])
    layout = torch.channels_last if x.dim() == 4 and _channels_last(x) else torch.contiguous_format
    mask = alone(whole.contiguous(memory_format=layout))
    return x * mask[world.share.start : world.share.stop]


def _channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


class _Sum(torch.autograd.Function):
    """The sum over processes, of values forward and of slopes backward."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, world: World) -> Tensor:
        ctx.world = world
        return world.sum(value)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        return ctx.world.sum(slopes[0]), None
