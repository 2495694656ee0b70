"""Convolutions of few channels as products with their patches.

The matrix units of a GPU take channels in eights, and an image has three: torch's library then takes ten times as long
as the numbers take to move. A patch of 5 × 5 × 3 is 75 of them, which with five zeros are ten eights.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hebbbench.kernels import in_use, product_dtype
from hebbbench.kernels.pools import DTYPES, Window

TOGETHER = 8
"""Numbers that the matrix units take at once."""

WIDEST = 256
"""Numbers of the largest patch."""

MOST = 2**24
"""Numbers of all patches of a batch, which are held until the backward pass: 32 MiB of them."""


class Geometry(NamedTuple):
    """How patches lie: kernel, steps and padding in rows and columns, and whether the border is mirrored."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    mirror: bool

    @classmethod
    def of(cls, layer: nn.Conv2d) -> Geometry | None:
        """That of a layer of few channels; None if the kernel cannot write its patches."""
        plain = layer.groups == 1 and tuple(layer.dilation) == (1, 1) and not isinstance(layer.padding, str)
        small = layer.in_channels < TOGETHER and layer.weight[0].numel() <= WIDEST
        if not (plain and small and layer.padding_mode in ("zeros", "reflect")):
            return None
        kernel, stride, padding = ((int(pair[0]), int(pair[1])) for pair in _pairs(layer))
        return cls(kernel, stride, padding, layer.padding_mode == "reflect")

    def over(self, x: Tensor) -> tuple[int, int]:
        """Rows and columns of the positions in x."""
        return Window(self.kernel, self.stride, self.padding).over(x.shape[2:])

    def columns(self, x: Tensor) -> int:
        """Numbers of a patch of x, and zeros up to a multiple of `TOGETHER`."""
        return -(-self.kernel[0] * self.kernel[1] * x.shape[1] // TOGETHER) * TOGETHER


def _pairs(layer: nn.Conv2d) -> tuple[Any, ...]:
    return layer.kernel_size, layer.stride, layer.padding


def suits(x: Tensor, geometry: Geometry, dtype: torch.dtype) -> bool:
    """Whether the kernel can write the patches of x in this precision."""
    height, width = geometry.over(x)
    mirrored = not geometry.mirror or all(p < side for p, side in zip(geometry.padding, x.shape[2:], strict=True))
    return (
        in_use(x.device)
        and x.dtype in DTYPES
        and dtype == torch.bfloat16
        and x.is_contiguous(memory_format=torch.channels_last)
        and min(height, width) >= 1
        and mirrored
        and 0 < x.shape[0] * height * width * geometry.columns(x) <= MOST
    )


def patches(x: Tensor, geometry: Geometry, dtype: torch.dtype) -> Tensor:
    """Every patch of x (N, C, H, W): kernel rows × columns × channels, and zeros up to a multiple of eight.

    Returns:
        (N × positions, patch), in this precision.
    """
    (height, width), columns = geometry.over(x), geometry.columns(x)
    pixels, across = x.shape[0] * height * width, 1 << (columns - 1).bit_length()
    written = torch.empty(pixels, columns, dtype=dtype, device=x.device)
    down = max(1, 2048 // across)
    shape = (*x.shape[2:], height, width, x.shape[1], *geometry.kernel, *geometry.stride, *geometry.padding)
    kernel = importlib.import_module("hebbbench.kernels.patch_kernels").unfolded
    with torch.cuda.device_of(x):
        kernel[(-(-pixels // down),)](x, written, pixels, *shape, geometry.mirror, columns, down, across)
    return written


class Product(torch.autograd.Function):
    """A convolution as a product with patches."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, geometry: Geometry, dtype: torch.dtype) -> Tensor:
        rows = patches(x, geometry, dtype)
        flat = weight.permute(0, 2, 3, 1).flatten(1)
        wide = flat.new_zeros(len(flat), rows.shape[1], dtype=dtype)
        wide[:, : flat.shape[1]] = flat
        ctx.save_for_backward(rows)
        ctx.shape, ctx.dtype = weight.shape, weight.dtype
        return (rows @ wide.T).view(len(x), *geometry.over(x), -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[None, Tensor, None, None]:
        (rows,) = ctx.saved_tensors
        out, channels, high, wide = ctx.shape
        upstream = slopes.permute(0, 2, 3, 1).reshape(len(rows), out)
        found = (upstream.T @ rows)[:, : high * wide * channels].to(ctx.dtype)
        return None, found.view(out, high, wide, channels).permute(0, 3, 1, 2), None, None


def quicken(model: nn.Module) -> None:
    """Have a network's convolutions of few channels go this way; each module, its state and its hooks stay as they are.

    What wants a gradient at its input goes torch's way, and so does what is not in bfloat16.
    """
    for module in model.modules():
        if type(module) is nn.Conv2d and (geometry := Geometry.of(module)) is not None:
            module.forward = partial(_convolved, module, geometry, module.forward)  # type: ignore[method-assign]


def _convolved(layer: nn.Conv2d, geometry: Geometry, usual: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    dtype = product_dtype(x)
    if x.requires_grad or x.dim() != 4 or not suits(x, geometry, dtype):
        return usual(x)
    y: Tensor = Product.apply(x, layer.weight, geometry, dtype)
    return y if layer.bias is None else y + layer.bias.to(dtype)[:, None, None]
