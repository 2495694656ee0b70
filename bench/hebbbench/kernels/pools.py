"""Pooling of channels_last tensors on a GPU, at the speed of its memory.

torch's own pools of this layout take five to fifteen times as long, in bfloat16 most of all. Forward the numbers are
the same to the last bit. Backward every place of the input gathers its slopes in a fixed order, so a repeated step
gives the same bits, too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hebbbench.kernels import in_use

AREA = 25
"""Places of the largest window, each of which is a step of its own in the kernel."""

ELEMENTS = 1024
"""Elements that one program writes."""

LARGEST = 2**31 - 1 - ELEMENTS
"""Elements of the largest tensor: offsets are 32 bits wide, also where the last program looks beyond its end."""

DTYPES = (torch.float32, torch.bfloat16)

Sides = int | tuple[int, ...]


class Window(NamedTuple):
    """What is pooled: rows and columns of the window, of its steps, and of the padding on either side."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    @classmethod
    def of(cls, kernel: Sides, stride: Sides | None, padding: Sides) -> Window:
        """From the arguments of torch's pools."""
        return cls(_pair(kernel), _pair(kernel if stride is None else stride), _pair(padding))

    def over(self, size: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of what comes of an input of this size."""
        height, width = (
            (side + 2 * padding - kernel) // stride + 1
            for side, kernel, stride, padding in zip(size, *self, strict=True)
        )
        return height, width

    def usual(self) -> bool:
        """Whether torch would take it, and the kernels, too."""
        small = 1 <= self.kernel[0] * self.kernel[1] <= AREA
        half = all(0 <= 2 * p <= k for p, k in zip(self.padding, self.kernel, strict=True))
        return small and half and min(self.stride) >= 1


def _pair(sides: Sides) -> tuple[int, int]:
    first, *rest = (sides,) if isinstance(sides, int) else sides
    return first, rest[0] if rest else first


def suits(x: Tensor, height: int, width: int) -> bool:
    """Whether the kernels can turn x into a tensor of this height and width."""
    return (
        x.is_cuda
        and x.dim() == 4
        and x.dtype in DTYPES
        and x.is_contiguous(memory_format=torch.channels_last)
        and min(height, width) >= 1
        and 0 < x.numel() <= LARGEST
        and x.shape[0] * x.shape[1] * height * width <= LARGEST
        and in_use(x.device)
    )


def blocks(channels: int) -> tuple[int, int]:
    """Pixels and channels that one program writes: eight elements a thread, 16 bytes of bfloat16."""
    across = next((c for c in (128, 64, 32) if channels % c == 0), min(128, 1 << (channels - 1).bit_length()))
    return ELEMENTS // across, across


def launch(name: str, written: Tensor, tensors: tuple[Tensor, ...], *geometry: object) -> None:
    """Run a kernel of `pool_kernels`.

    Args:
        name: of the kernel.
        written: the tensor that its programs share out among themselves.
        tensors: its first arguments.
        geometry: its further arguments but pixels and channels, which come before them, and the size of a block.
    """
    kernel = getattr(importlib.import_module("hebbbench.kernels.pool_kernels"), name)
    pictures, channels, height, width = written.shape
    pixels = pictures * height * width
    down, across = blocks(channels)
    programs = -(-pixels // down) * -(-channels // across)
    kernel[(programs,)](*tensors, pixels, channels, *geometry, down, across)


def empty(x: Tensor, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """A channels_last tensor of this height and width, with x's pictures and channels."""
    return torch.empty((*x.shape[:2], *size), dtype=dtype, device=x.device, memory_format=torch.channels_last)


def max_of(x: Tensor, window: Window, keep: bool) -> tuple[Tensor, Tensor]:
    """The largest of each window and, if `keep`, which place of it won, a byte each."""
    size = window.over(x.shape[2:])
    y = empty(x, size, x.dtype)
    winners = empty(x, size, torch.uint8) if keep else y
    launch("max_forward", y, (x, y, winners), *x.shape[2:], *size, *sum(window, ()), keep)
    return y, winners


def mean_of(x: Tensor, window: Window) -> Tensor:
    """The mean of each window, whose padding counts as zeros."""
    size = window.over(x.shape[2:])
    y = empty(x, size, x.dtype)
    launch("avg_forward", y, (x, y), *x.shape[2:], *size, *sum(window, ()))
    return y


class Max(torch.autograd.Function):
    """Maximum over windows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Window) -> Tensor:
        ctx.window, ctx.size = window, x.shape[2:]
        y, winners = max_of(x, window, True)
        ctx.save_for_backward(winners)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None]:
        (winners,) = ctx.saved_tensors
        slopes = slopes.contiguous(memory_format=torch.channels_last)
        found = empty(slopes, ctx.size, slopes.dtype)
        sides = (*ctx.size, *slopes.shape[2:])
        launch("max_backward", found, (slopes, winners, found), *sides, *sum(ctx.window, ()))
        return found, None


class Mean(torch.autograd.Function):
    """Mean over windows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Window) -> Tensor:
        ctx.window, ctx.size = window, x.shape[2:]
        return mean_of(x, window)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None]:
        slopes = slopes.contiguous(memory_format=torch.channels_last)
        found = empty(slopes, ctx.size, slopes.dtype)
        launch("avg_backward", found, (slopes, found), *ctx.size, *slopes.shape[2:], *sum(ctx.window, ()))
        return found, None


def max_pool2d(x: Tensor, kernel: Sides, stride: Sides | None = None, padding: Sides = 0) -> Tensor:
    """`F.max_pool2d`, by a kernel where one can do it."""
    window = Window.of(kernel, stride, padding)
    if not _can(x, window):
        return F.max_pool2d(x, kernel, stride, padding)
    with torch.cuda.device_of(x):
        pooled: Tensor = Max.apply(x, window) if _learns(x) else max_of(x, window, False)[0]
    return pooled


def avg_pool2d(x: Tensor, kernel: Sides, stride: Sides | None = None, padding: Sides = 0) -> Tensor:
    """`F.avg_pool2d`, by a kernel where one can do it."""
    window = Window.of(kernel, stride, padding)
    if not _can(x, window):
        return F.avg_pool2d(x, kernel, stride, padding)
    with torch.cuda.device_of(x):
        pooled: Tensor = Mean.apply(x, window) if _learns(x) else mean_of(x, window)
    return pooled


def _can(x: Tensor, window: Window) -> bool:
    return x.is_cuda and x.dim() == 4 and window.usual() and suits(x, *window.over(x.shape[2:]))


def _learns(x: Tensor) -> bool:
    return x.requires_grad and torch.is_grad_enabled()


def quicken(model: nn.Module) -> None:
    """Have the model's pools use the kernels wherever those can do what the pool does.

    A pool that already has a forward of its own is left as it is.
    """
    for module in model.modules():
        pool = _quick(module)
        if pool is not None and "forward" not in vars(module):
            module.forward = partial(pool, module)


def _quick(module: nn.Module) -> Callable[[Any, Tensor], Tensor] | None:
    if type(module) is nn.MaxPool2d:
        plain = _pair(module.dilation) == (1, 1) and not module.ceil_mode and not module.return_indices
        return _max_forward if plain else None
    if type(module) is nn.AvgPool2d:
        padded = _pair(module.padding) != (0, 0)
        plain = not module.ceil_mode and module.divisor_override is None and (module.count_include_pad or not padded)
        return _avg_forward if plain else None
    return None


def _max_forward(module: nn.MaxPool2d, x: Tensor) -> Tensor:
    return max_pool2d(x, module.kernel_size, module.stride, module.padding)


def _avg_forward(module: nn.AvgPool2d, x: Tensor) -> Tensor:
    return avg_pool2d(x, module.kernel_size, module.stride, module.padding)
