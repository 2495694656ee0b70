"""Activity that is computed a piece of its rows at a time, and anew each time it is wanted.

Competition is float32 also where products are bfloat16. A layer's potential, its softmax and the product of the two
would then be three tensors, each twice as large as the layer's output, in a forward pass that holds the activity of all
layers before for the backward pass. Given this stand-in for the potential, a rule's equation runs on pieces, and one of
the three at most is there as a whole. The bits are the same, because each row is computed by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ParamSpec, cast

import torch
from torch import Tensor, nn

PIECE = 2**19
"""Numbers of a piece: 2 MiB, which a core's cache about holds, and enough for several threads."""

OPERATORS = ("neg", "abs", "add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv")

P = ParamSpec("P")
Done = dict[int, Tensor]


class NeededWhole(Exception):
    """A rule wants more of the stand-in than can be done to each row by itself."""


class Rows:
    """Rows (B, units) to be computed.

    Args:
        shape: (B, units); dtype, device: of what is computed.
        make: the rows of a slice, given also what has been computed of these rows, by the stand-in's identity.
    """

    __hash__ = object.__hash__

    def __init__(
        self, shape: torch.Size, dtype: torch.dtype, device: torch.device, make: Callable[[slice, Done], Tensor]
    ) -> None:
        self.shape, self.dtype, self.device = shape, dtype, device
        self._make = make

    def whole(self, dtype: torch.dtype | None = None) -> Tensor:
        """All rows, written out, in another precision if one is named."""
        written = torch.empty(self.shape, dtype=dtype or self.dtype, device=self.device)
        for rows in self._slices():
            written[rows] = self._of(rows, {})
        return written

    def to(self, dtype: torch.dtype) -> Tensor:
        """All rows in this precision."""
        return self.whole(dtype)

    def mean(self, dim: int) -> Tensor:
        """The mean over rows, (units,), of all of them at once: pieces would be added up in another order."""
        if dim != 0:
            raise NeededWhole(f"the mean over dimension {dim}")
        return self.whole().mean(0)

    def _slices(self) -> Iterator[slice]:
        size = max(1, PIECE // self.shape[1])
        return (slice(first, first + size) for first in range(0, self.shape[0], size))

    def _of(self, rows: slice, done: Done) -> Tensor:
        if id(self) not in done:
            done[id(self)] = self._make(rows, done)
        return done[id(self)]

    def __getattr__(self, name: str) -> Any:
        raise NeededWhole(name)

    def __bool__(self) -> bool:
        raise NeededWhole("a truth value")

    def __eq__(self, other: object) -> bool:
        raise NeededWhole("a comparison")

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        raise NeededWhole(getattr(function, "__name__", "a function"))


def rowwise(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """A function of activities (B, units), each row by itself, that takes stand-ins for them, too."""

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        like = next((value for value in args if isinstance(value, Rows)), None)
        return function(*args, **kwargs) if like is None else cast(Tensor, _later(like, function, args, kwargs))

    return called


def potential(output: Tensor, layer: nn.Linear | nn.Conv2d) -> Rows:
    """What `post_rows` makes of a layer's output, in pieces."""
    rows = output.permute(0, 2, 3, 1) if isinstance(layer, nn.Conv2d) else output
    rows = rows.reshape(-1, rows.shape[-1])
    dtype = layer.weight.dtype
    bias = None if layer.bias is None else layer.bias.detach()

    def make(piece: slice, done: Done) -> Tensor:
        wide = rows[piece].to(dtype)
        return wide if bias is None else wide - bias

    return Rows(rows.shape, dtype, rows.device, make)


def _later(like: Rows, function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Rows:
    def make(rows: slice, done: Done) -> Tensor:
        return function(*(value._of(rows, done) if isinstance(value, Rows) else value for value in args), **kwargs)

    return Rows(like.shape, like.dtype, like.device, make)


def _operator(name: str) -> Callable[..., Rows]:
    function = getattr(Tensor, name)

    def called(self: Rows, *others: Any) -> Rows:
        if not all(isinstance(other, Rows | float | int) for other in others):
            raise NeededWhole("a tensor")  # somebody may change it before these rows are computed
        return _later(self, function, (self, *others), {})

    return called


for _name in OPERATORS:
    setattr(Rows, f"__{_name}__", _operator(f"__{_name}__"))
