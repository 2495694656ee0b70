"""Rows that are computed a piece at a time, and anew each time they are wanted.

Competition is float32 also where products are bfloat16. A layer's potential, its softmax and the product of the two
would then be three tensors, each twice as large as the layer's output, in a forward pass that holds the activity of all
layers before for the backward pass; and what comes of them would wait for the gradient in float32, when the product it
comes from is half as large. Given this stand-in for the potential, a rule's equation runs on pieces of the batch, its
terms return stand-ins whose pieces are units, and one tensor of the layer's activity at most is there as a whole. The
bits are the same: nothing is added up in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ParamSpec, cast

import torch
from torch import Tensor, nn

PIECE = 2**20
"""Numbers of a piece: 4 MiB, which the caches of two cores about hold, and enough for their threads; of half as many
the peak is no lower, of twice as many it rises by a twentieth."""

OPERATORS = ("neg", "abs", "add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv")
METHODS = ("neg", "abs", "sign")
IN_PLACE = ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "imatmul", "iand", "ior", "ixor")
"""Operators that write to their left side, which a stand-in has not: another name of it would not see the change."""

P = ParamSpec("P")
Done = dict[int, Tensor]


class NeededWhole(Exception):
    """A rule wants more of the stand-in than can be done to each row by itself."""


class Rows:
    """Rows to be computed: activities (B, units), or a term of an update (out, in).

    Args:
        shape: of all rows; dtype, device: of what is computed.
        make: the rows of a slice, given also what has been computed of these rows, by the stand-in's identity.
        waits: whether they can wait for the gradient: whether no activity is held for them.
    """

    __hash__ = object.__hash__

    def __init__(
        self,
        shape: torch.Size,
        dtype: torch.dtype,
        device: torch.device,
        make: Callable[[slice, Done], Tensor],
        waits: bool,
    ) -> None:
        self.shape, self.dtype, self.device, self.waits = shape, dtype, device, waits
        self._make = make

    def whole(self, dtype: torch.dtype | None = None) -> Tensor:
        """All rows, written out, in another precision if one is named."""
        written = torch.empty(self.shape, dtype=dtype or self.dtype, device=self.device)
        for rows in slices(self.shape):
            written[rows] = self.piece(rows, {})
        return written

    def to(self, dtype: torch.dtype) -> Tensor:
        """All rows in this precision."""
        return self.whole(dtype)

    def mean(self, dim: int) -> Tensor:
        """The mean over rows, (units,), of all of them at once: pieces would be added up in another order."""
        if dim != 0:
            raise NeededWhole(f"the mean over dimension {dim}")
        return self.whole().mean(0)

    def aminmax(self) -> tuple[Tensor, Tensor]:
        """The least and the largest of all numbers."""
        found = [self.piece(rows, {}).aminmax() for rows in slices(self.shape)]
        return torch.stack([least for least, _ in found]).min(), torch.stack([most for _, most in found]).max()

    def piece(self, rows: slice, done: Done) -> Tensor:
        """These rows; what has been computed of them is in `done`, and is added to it."""
        if id(self) not in done:
            done[id(self)] = self._make(rows, done)
        return done[id(self)]

    def divided(self, product: Tensor, count: int) -> Rows | Tensor:
        """A product (out, in) with these rows over `count`, in their precision."""

        dtype = self.dtype  # not `self`: the activity behind these rows would be held until the gradient is there

        def make(units: slice, done: Done) -> Tensor:
            return product[units].to(dtype, copy=True).div_(count)

        return Rows(product.shape, dtype, product.device, make, waits=True)

    def scaled(self, factor: Tensor, weight: Tensor) -> Rows | Tensor:
        """Each unit's weights (out, in) times its factor (out,). The weights must not change before it is wanted."""

        def make(units: slice, done: Done) -> Tensor:
            return factor[units].unsqueeze(1) * weight[units]

        return Rows(weight.shape, weight.dtype, weight.device, make, waits=True)

    def _noted(self, name: str, function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Any) -> Rows:
        """Rows of what a function will make of its arguments, these rows among them."""
        given = [value for value in args if isinstance(value, Rows)]
        args = tuple(value.clone() if isinstance(value, Tensor) else value for value in args)  # it may change

        def make(rows: slice, done: Done) -> Tensor:
            pieces = (value.piece(rows, done) if isinstance(value, Rows) else value for value in args)
            return function(*pieces, **kwargs)

        return Rows(given[0].shape, given[0].dtype, given[0].device, make, all(value.waits for value in given))

    def _takes(self, value: Any) -> bool:
        """Whether these rows can be calculated with it piece by piece; of tensors only with a number."""
        if isinstance(value, Rows):
            return value.shape == self.shape
        return isinstance(value, float | int) or (isinstance(value, Tensor) and value.dim() == 0)

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


def slices(shape: torch.Size) -> Iterator[slice]:
    """The pieces of rows of this shape."""
    size = max(1, PIECE // shape[1])
    return (slice(first, first + size) for first in range(0, shape[0], size))


def rowwise(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """A function of activities (B, units), each row by itself, that takes stand-ins for them, too."""

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        own = next((value for value in args if isinstance(value, Rows)), None)
        if own is None:
            return function(*args, **kwargs)
        return cast(Tensor, own._noted(function.__name__, function, args, kwargs))

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

    return Rows(rows.shape, dtype, rows.device, make, waits=False)


def _operator(name: str) -> Callable[..., Any]:
    function = getattr(Tensor, name)

    def called(self: Rows, *others: Any) -> Any:
        if not all(self._takes(other) for other in others):
            return NotImplemented
        return self._noted(name.strip("_"), function, (self, *others), {})

    return called


def _refused(name: str) -> Callable[..., Any]:
    def called(self: Rows, other: Any) -> Any:
        raise NeededWhole(f"{name} changes a tensor in place")

    return called


for _name in IN_PLACE:
    setattr(Rows, f"__{_name}__", _refused(_name))
for _name in OPERATORS:
    setattr(Rows, f"__{_name}__", _operator(f"__{_name}__"))
for _name in METHODS:
    setattr(Rows, _name, _operator(_name))
