"""Rows on a GPU: what a rule does to them is noted down, and computed in one pass over memory when it is wanted.

A rule's equation stays as it is written. Given this stand-in for a potential or a gradient, its terms note down what
they would do, and what is needed as a tensor (an outer product's factor, a mean, the update itself) is computed by one
kernel made for it (see `kernels.rows`). A rule that does more to it is shown the tensor instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hebbbench.kernels.rows import (
    ARITHMETIC,
    EACH,
    ROWWISE,
    WIDEST,
    Kind,
    Leaf,
    Term,
    column_mean,
    extremes,
    leaves_of,
    write,
)
from hebbbench.plasticity.pieces import Done, NeededWhole, Rows

NAMES = {"multiply": "mul", "subtract": "sub", "div": "truediv", "divide": "truediv", "true_divide": "truediv"}
"""What torch calls arithmetic otherwise."""


class Fused(Rows):
    """Rows to be computed by a kernel of their own.

    Args:
        term: the equation; shape: (rows, units) of what comes of it.
        dtype, device: of what comes of it.
        waits: as in `Rows`.
    """

    __hash__ = object.__hash__

    def __init__(
        self, term: Term | Leaf, shape: torch.Size, dtype: torch.dtype, device: torch.device, waits: bool
    ) -> None:
        self.term = term
        self.shape, self.dtype, self.device, self.waits = shape, dtype, device, waits

    def whole(self, dtype: torch.dtype | None = None) -> Tensor:
        dtype = dtype or self.dtype
        if isinstance(self.term, Leaf) and isinstance(self.term.value, Tensor) and self.term.value.dtype == dtype:
            return self.term.value
        return write(self.term, self.shape, dtype, self.device)

    def to(self, dtype: torch.dtype) -> Tensor:
        """All rows in this precision, in memory of their own: a rule may write to them."""
        written = self.whole(dtype)
        return written.clone() if isinstance(self.term, Leaf) and written is self.term.value else written

    def changed(self) -> bool:
        """Whether a tensor that it is calculated from was written to since it was noted down."""
        return any(leaf.changed() for leaf in leaves_of(self.term))

    def mean(self, dim: int) -> Tensor:
        if dim != 0:
            raise NeededWhole(f"the mean over dimension {dim}")
        return column_mean(self.term, self.shape, self.device)

    def aminmax(self) -> tuple[Tensor, Tensor]:
        return extremes(self.term, self.shape, self.device)

    def piece(self, rows: slice, done: Done) -> Tensor:
        if id(self) not in done:
            done[id(self)] = self.whole()[rows]
        return done[id(self)]

    def negative(self) -> Fused:
        """Each number with the other sign."""
        return self._made("neg", self)

    def square(self) -> Fused:
        """Each number times itself."""
        return self._made("square", self)

    def relu(self) -> Fused:
        """Each number, or 0 if it is less."""
        return self._made("relu", self)

    def cosine(self, lengths: Tensor, norms: Tensor) -> Fused:
        """u over its row's length (rows,) and its unit's norm (units,), within [−1, 1]; 0 where either is 0."""
        return self._made("cosine", self, Leaf("row", lengths.contiguous()), Leaf("column", norms.contiguous()))

    def divided(self, product: Tensor, count: int) -> Rows | Tensor:
        if not _fits(product):
            return product.to(self.dtype, copy=True).div_(count)
        return self._made("truediv", rows_of(product), count)

    def scaled(self, factor: Tensor, weight: Tensor) -> Rows | Tensor:
        if not _fits(weight):
            return factor.unsqueeze(1) * weight
        return self._made("mul", rows_of(weight), factor.unsqueeze(1))

    def _noted(self, name: str, function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Any) -> Rows:
        operation = name if name in ARITHMETIC or name in EACH or name in ROWWISE else name.removeprefix("r")
        if kwargs or not (operation in ARITHMETIC or operation in EACH or operation in ROWWISE):
            raise NeededWhole(name)
        return self._made(operation, *(reversed(args) if operation != name else args))

    def _made(self, operation: str, *values: Any) -> Fused:
        like = next(value for value in values if isinstance(value, Fused))
        if operation == "neg" and isinstance(like.term, Term) and like.term.operation == "neg":
            return Fused(like.term.arguments[0], like.shape, like.dtype, like.device, like.waits)
        leaves = tuple(value if isinstance(value, Leaf) else _part(value, like) for value in values)
        parts = tuple(part for part in leaves if part is not None)
        if len(parts) < len(values):
            raise NeededWhole(operation)
        waits = all(value.waits for value in values if isinstance(value, Fused))
        return Fused(Term(operation, parts), like.shape, self.dtype, like.device, waits)

    def _takes(self, value: Any) -> bool:
        return _part(value, self) is not None

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(function, "__name__", "")
        if name.endswith("_") and not name.endswith("__"):
            raise NeededWhole(f"{name} changes a tensor in place")
        name = NAMES.get(name.strip("_"), name.strip("_"))
        if not kwargs and len(args) == 2 and name in ARITHMETIC:
            own = next(value for value in args if isinstance(value, Fused))
            if all(isinstance(value, Fused) or own._takes(value) for value in args):
                return own._made(name, *args)
        if not kwargs and len(args) == 1 and name in EACH:
            return args[0]._made(name, args[0])
        raise NeededWhole(name or "a function")


def rows_of(tensor: Tensor, dtype: torch.dtype | None = None, waits: bool = True) -> Fused:
    """A stand-in for a tensor (rows, units); `dtype` of what is computed from it, its own if None."""
    tensor = tensor.contiguous()
    return Fused(Leaf("matrix", tensor), tensor.shape, dtype or tensor.dtype, tensor.device, waits)


def fused_potential(output: Tensor, layer: nn.Linear | nn.Conv2d) -> Fused | None:
    """What `post_rows` makes of a layer's output; None if it is not for a kernel."""
    rows = output.permute(0, 2, 3, 1) if isinstance(layer, nn.Conv2d) else output
    rows = rows.reshape(-1, rows.shape[-1])
    if layer.weight.dtype != torch.float32 or not _fits(rows):
        return None
    post = rows_of(rows, layer.weight.dtype, waits=False)
    return post if layer.bias is None else post._made("sub", post, layer.bias.detach())


def _fits(rows: Tensor) -> bool:
    return rows.shape[1] <= WIDEST and rows.numel() > 0


def _part(value: Any, own: Fused) -> Term | Leaf | None:
    """What a kernel over rows of this shape can calculate with; None if it cannot, or torch's answer were another."""
    if isinstance(value, Fused):
        return value.term if value.shape == own.shape else None
    if isinstance(value, float | int):
        return Leaf("number", float(value))
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return None
    if value.requires_grad and torch.is_grad_enabled():
        return None
    shape = tuple(value.shape)
    if shape == () and value.device.type == "cpu" != own.device.type:
        return Leaf("number", float(value))
    if value.device != own.device or (value.dtype == torch.float64 and shape != ()):
        return None
    kinds: dict[tuple[int, ...], Kind] = {
        (): "scalar",
        (own.shape[1],): "column",
        (1, own.shape[1]): "column",
        (own.shape[0], 1): "row",
    }
    kind: Kind | None = "matrix" if shape == tuple(own.shape) else kinds.get(shape)
    return None if kind is None else Leaf(kind, value.contiguous())
