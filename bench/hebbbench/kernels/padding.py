"""Reflection padding of channels_last tensors on a GPU, with the cast to another dtype in the same pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hebbbench.kernels.pools import DTYPES, empty, launch, suits

Margins = tuple[int, int, int, int]
"""Left, right, top, bottom."""


def reflect_pad(x: Tensor, margins: Margins, dtype: torch.dtype) -> Tensor:
    """`F.pad(x, margins, mode="reflect").to(dtype)`, by one kernel where it can do it.

    Args:
        x: (N, C, H, W).
        margins: left, right, top, bottom, each smaller than the side that it mirrors.
        dtype: of what is returned.
    """
    if not (x.is_cuda and x.dim() == 4 and dtype in DTYPES and _within(x, margins) and suits(x, *_padded(x, margins))):
        return F.pad(x, margins, mode="reflect").to(dtype)
    with torch.cuda.device_of(x):
        learns = x.requires_grad and torch.is_grad_enabled()
        padded: Tensor = Reflection.apply(x, margins, dtype) if learns else reflected(x, margins, dtype)
    return padded


def _within(x: Tensor, margins: Margins) -> bool:
    left, right, top, bottom = margins
    return min(margins) >= 0 and max(left, right) < x.shape[3] and max(top, bottom) < x.shape[2]


def _padded(x: Tensor, margins: Margins) -> tuple[int, int]:
    left, right, top, bottom = margins
    return top + x.shape[2] + bottom, left + x.shape[3] + right


def reflected(x: Tensor, margins: Margins, dtype: torch.dtype) -> Tensor:
    """The kernel's answer, whatever x is."""
    size = _padded(x, margins)
    y = empty(x, size, dtype)
    launch("reflect_forward", y, (x, y), *x.shape[2:], *size, margins[0], margins[2])
    return y


class Reflection(torch.autograd.Function):
    """Padding by reflection, and a cast."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, margins: Margins, dtype: torch.dtype) -> Tensor:
        ctx.margins, ctx.size, ctx.dtype = margins, x.shape[2:], x.dtype
        return reflected(x, margins, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None, None]:
        slopes = slopes.contiguous(memory_format=torch.channels_last)
        found = empty(slopes, ctx.size, ctx.dtype)
        sides = (*ctx.size, *slopes.shape[2:])
        launch("reflect_backward", found, (slopes, found), *sides, ctx.margins[0], ctx.margins[2])
        return found, None, None
