"""What a layer shows its rule. Convolution is handled here, once: a rule sees rows, whatever the layer.

A convolution is a linear map of patches, so its rows are patches: B = samples × output positions, and the columns
run over (kernel row, kernel column, channel), the order in which channels-last memory holds them. Nothing here
unfolds unless a rule asks for `rows`.
"""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hebbbench.errors import RuleError
from hebbbench.kernels.padding import reflect_pad
from hebbbench.kernels.patches import Geometry, patches, suits
from hebbbench.plasticity.pieces import Rows
from hebbbench.plasticity.routes import ROUTES, USUAL


@runtime_checkable
class Pre(Protocol):
    """Presynaptic activity x of one layer, as rows (B, in)."""

    @property
    def rows(self) -> Tensor:
        """x, shape (B, in). For a convolution this copies every patch; prefer `outer`."""
        ...

    @property
    def count(self) -> int:
        """B, the number of rows: samples × positions."""
        ...

    @property
    def channels(self) -> int:
        """How many neighbouring columns are the channels of one position of the kernel; `in` for a linear layer."""
        ...

    @property
    def squared_norm(self) -> Tensor:
        """‖x‖² of each row, (B,). For a convolution a sum over windows of x², which copies no patch."""
        ...

    def outer(self, a: Tensor) -> Tensor:
        """⟨a xᵀ⟩, the mean over B of the outer product of `a` (B, out) with x, shape (out, in)."""
        ...

    def potential(self, weight: Tensor) -> Tensor:
        """w x, (B, out), for weights (out, in) other than the layer's own, whose potential is `post`."""
        ...


class LinearPre:
    """The input of a linear layer.

    Args:
        x: as the layer's product saw it, (…, in); its precision is that of `outer`'s product.
        dtype: of everything else; that of `x` if None.
        products: in place of the precision of `x`, that of `outer`'s product.
    """

    def __init__(self, x: Tensor, dtype: torch.dtype | None = None, products: torch.dtype | None = None) -> None:
        self._x = x.reshape(-1, x.shape[-1])
        self._dtype = dtype or x.dtype
        self._products = products or x.dtype

    @property
    def rows(self) -> Tensor:
        return self._x.to(self._dtype)

    @property
    def count(self) -> int:
        return self._x.shape[0]

    @property
    def channels(self) -> int:
        return self._x.shape[1]

    @property
    def squared_norm(self) -> Tensor:
        return self.rows.square().sum(1)

    def outer(self, a: Tensor) -> Tensor:
        return _mean(_in(a, self._products).T @ self._x.to(self._products), a, self.count)

    def potential(self, weight: Tensor) -> Tensor:
        return (self._x @ weight.to(self._x.dtype).T).to(self._dtype)


class ConvPre:
    """The patches of a convolution's input, lazily.

    ⟨a xᵀ⟩ is the weight gradient of the convolution with `a` as the upstream gradient, so it is one library call for
    every stride, padding and dilation; or it goes another way, where that is faster (see `routes`).

    Args:
        x: as the layer's product saw it; its precision is that of `outer`'s product, unless `products` is another.
        positions: the shape of the layer's output.
    """

    def __init__(self, x: Tensor, layer: nn.Conv2d, positions: torch.Size, products: torch.dtype | None = None) -> None:
        self._x = x
        self._layer = layer
        self._positions = positions
        self._samples, _, self._height, self._width = positions
        self._products = products or x.dtype

    @property
    def count(self) -> int:
        return self._samples * self._height * self._width

    def _padded(self) -> tuple[Tensor, tuple[int, int]]:
        """The input and the zero padding left for the library call to add."""
        layer = self._layer
        if layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
            return self._x, (layer.padding[0], layer.padding[1])
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        if mode == "reflect":
            left, right, top, bottom = _sides(layer)
            return reflect_pad(self._x, (left, right, top, bottom), self._x.dtype), (0, 0)
        return F.pad(self._x, _sides(layer), mode=mode), (0, 0)

    @property
    def rows(self) -> Tensor:
        return self._patches().to(self._layer.weight.dtype)

    def _patches(self) -> Tensor:
        """Every patch written out, (B, in), in the precision of the layer's product."""
        return self._windows().reshape(self.count, -1)

    def _windows(self) -> Tensor:
        """A view of every patch, (samples, height, width, kernel height, kernel width, channels)."""
        layer = self._layer
        x, (top, left) = self._padded()
        image = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, left, top, top)).contiguous()
        sample, line, column, channel = image.stride()
        down, across = _pair(layer.stride)
        deep, wide = _pair(layer.dilation)
        return image.as_strided(
            (self._samples, self._height, self._width, *_pair(layer.kernel_size), image.shape[3]),
            (sample, line * down, column * across, line * deep, column * wide, channel),
        )

    @property
    def channels(self) -> int:
        return self._x.shape[1]

    @property
    def squared_norm(self) -> Tensor:
        x, padding = self._padded()
        layer = self._layer
        x = x.to(layer.weight.dtype)
        box = x.new_ones(1, 1, *_pair(layer.kernel_size))
        energy = x.square().sum(1, keepdim=True)
        summed = F.conv2d(energy, box, stride=_pair(layer.stride), padding=padding, dilation=_pair(layer.dilation))
        return summed.clamp_min(0).reshape(-1)

    def outer(self, a: Tensor) -> Tensor:
        if self._products != self._x.dtype:
            return ConvPre(self._x.to(self._products), self._layer, self._positions).outer(a)
        weight, x = self._layer.weight, self._x
        upstream = _in(a, x.dtype)
        ways = {
            USUAL: lambda: self._by_library(upstream),
            "patches": lambda: self._by_patches(upstream),
            "shifts": lambda: self._by_shifts(upstream),
            "swapped": lambda: self._by_swapping(upstream),
        }
        key = f"{tuple(weight.shape)} on {self._height}×{self._width} in {x.dtype}"
        product = ROUTES.take(key, weight.numel() * self.count, ways, x)
        return _mean(product, a, self.count)

    def _by_library(self, a: Tensor) -> Tensor:
        x, padding = self._padded()
        return weight_rows(weight_gradient(x, self._image(a), self._layer, padding))

    def _by_patches(self, a: Tensor) -> Tensor:
        """One product with all patches written out."""
        geometry = Geometry.of(self._layer)
        if geometry is None or not suits(self._x, geometry, self._x.dtype):
            return a.T @ self._patches()
        return (a.T @ patches(self._x, geometry, self._x.dtype))[:, : self._layer.weight[0].numel()]

    def _image(self, a: Tensor) -> Tensor:
        """Rows (B, out) as they lie at the layer's output, (samples, out, height, width)."""
        return a.view(self._samples, self._height, self._width, -1).permute(0, 3, 1, 2)

    def _by_swapping(self, a: Tensor) -> Tensor:
        """A convolution of the input with `a`, in which samples and channels, stride and dilation have changed places.

        The way of SoftHebb's code (arXiv:2209.11883); what a stride leaves over at the border is cut off.
        """
        layer = self._layer
        x, padding = self._padded()
        kernel, settings = self._image(a).transpose(0, 1), (_pair(layer.dilation), padding, _pair(layer.stride))
        found = F.conv2d(x.transpose(0, 1), kernel, None, *settings)
        height, width = _pair(layer.kernel_size)
        return found[:, :, :height, :width].permute(1, 2, 3, 0).reshape(a.shape[1], -1)

    def _by_shifts(self, a: Tensor) -> Tensor:
        """One product for each place of the kernel; its memory is that of one shifted input."""
        windows = self._windows()
        height, width = _pair(self._layer.kernel_size)
        shifted = (windows[:, :, :, i, j].reshape(self.count, -1) for i in range(height) for j in range(width))
        return torch.cat([a.T @ rows for rows in shifted], 1)

    def potential(self, weight: Tensor) -> Tensor:
        x, padding = self._padded()
        layer = self._layer
        kernel = weight_like(weight, layer.weight).to(x.dtype)
        output = F.conv2d(x, kernel, stride=_pair(layer.stride), padding=padding, dilation=_pair(layer.dilation))
        return output.permute(0, 2, 3, 1).reshape(self.count, -1).to(layer.weight.dtype)


def _in(a: Tensor, dtype: torch.dtype) -> Tensor:
    """A factor in the precision of a product, which does not write to it."""
    return a.whole(dtype) if isinstance(a, Rows) else a.to(dtype)


def _mean(product: Tensor, a: Tensor, count: int) -> Tensor:
    """The sum `product` of `count` rows' outer products with `a` as their mean, in the precision of `a`."""
    if isinstance(a, Rows):
        return cast(Tensor, a.divided(product, count))
    return product.to(a.dtype).div_(count)


def weight_gradient(x: Tensor, upstream: Tensor, layer: nn.Conv2d, padding: tuple[int, int]) -> Tensor:
    """The convolution's weight gradient from its input (N, in, …) and the gradient at its output (N, out, …).

    The library's own, but not by `torch.nn.grad`, which fills a stand-in as large as the weight before it begins.
    """
    weight = layer.weight.detach().to(x.dtype)
    settings = _pair(layer.stride), padding, _pair(layer.dilation), False, (0, 0), layer.groups
    gradient: Tensor = torch.ops.aten.convolution_backward(
        upstream, x, weight, None, *settings, output_mask=[False, True, False]
    )[1]
    return gradient


def weight_rows(weight: Tensor) -> Tensor:
    """A layer's weight as rows (out, in): a view for linear layers and channels-last convolutions."""
    return weight if weight.dim() == 2 else weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)


def weight_like(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows (out, in) in the layout of `weight`; the inverse of `weight_rows`."""
    if weight.dim() == 2:
        return rows
    out, channels, height, width = weight.shape
    return rows.view(out, height, width, channels).permute(0, 3, 1, 2)


def post_rows(output: Tensor, layer: nn.Linear | nn.Conv2d) -> Tensor:
    """A layer's potential w x as rows (B, out), in the weight's precision, less the bias where it has one.

    A view of the output where that has the weight's precision already.
    """
    rows = output.permute(0, 2, 3, 1) if isinstance(layer, nn.Conv2d) else output
    rows = rows.reshape(-1, rows.shape[-1]).to(layer.weight.dtype)
    return rows if layer.bias is None else rows - layer.bias.detach()


def pre_of(
    x: Tensor, output: Tensor, layer: nn.Linear | nn.Conv2d, products: torch.dtype | None = None
) -> ConvPre | LinearPre:
    """The presynaptic activity of a layer that turned `x` into `output`, in the precision in which it did.

    Args:
        products: precision of its outer product; the same if None.
    """
    x = x.to(output.dtype)
    if isinstance(layer, nn.Conv2d):
        return ConvPre(x, layer, output.shape, products)
    return LinearPre(x, layer.weight.dtype, products)


def check_layer(name: str, layer: nn.Module) -> None:
    """Refuse a layer no rule can govern.

    Raises:
        RuleError: the layer is neither linear nor a two-dimensional convolution, or is a grouped one.
    """
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        raise RuleError(f"layer '{name}' is a {type(layer).__name__}; rules govern Linear and Conv2d layers.")
    if isinstance(layer, nn.Conv2d) and layer.groups != 1:
        raise RuleError(
            f"layer '{name}' is a convolution in {layer.groups} groups; rules govern groups = 1, because units of "
            "different groups see different inputs. Leave it out of the protocol's plastic layers."
        )


def _pair(value: tuple[int, ...]) -> tuple[int, int]:
    return value[0], value[1]


def _sides(layer: nn.Conv2d) -> list[int]:
    """Explicit padding (left, right, top, bottom); 'same' puts an odd one on the right and bottom, as torch does."""
    sides: list[int] = []
    for axis in (1, 0):
        if layer.padding == "valid":
            sides += [0, 0]
        elif layer.padding == "same":
            total = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
            sides += [total // 2, total - total // 2]
        else:
            sides += [int(layer.padding[axis])] * 2
    return sides
