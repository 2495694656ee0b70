"""What the units of a wide layer fire together, multiplied with weights without ever being written out.

⟨a aᵀ⟩ has as many rows and columns as a layer has units. Of a batch with far fewer rows than that its products go by
the rows instead: (aᵀa) w = aᵀ(a w), and its lower triangle by blocks of units, each of which needs of all earlier ones
only what they add up to at every row. On FastHebb's 4096 units and 64 samples that is a tenth of the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hebbbench.world import present

LEAST = 1024
"""Units below which ⟨a aᵀ⟩ is written out: there is nothing to gain."""
ROWS_PER_UNIT = 0.25
"""Of more rows than this part of the units it is written out, too."""
BLOCK = 128
"""Units of a block, at least; so many that the products of one are worth a call."""


def far_fewer_rows(a: Tensor) -> bool:
    """Whether the products of ⟨a aᵀ⟩, of activity (B, out), are better formed by the rows.

    Never where several processes share the rows: all have to exchange the same, and one may have a row more.
    """
    rows, units = a.shape
    return present().size == 1 and units >= LEAST and rows <= ROWS_PER_UNIT * units


class Correlation:
    """⟨a aᵀ⟩, or its lower triangle, as a tensor (out, out) that is written out only if more is asked than products.

    Args:
        a: postsynaptic factor, (B, out).
        lower: only what lies on the diagonal and below.
    """

    def __init__(self, a: Tensor, lower: bool = False) -> None:
        self._a, self._lower = a, lower

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self._a.shape[1], self._a.shape[1]))

    def tril(self, diagonal: int = 0) -> Any:
        """The lower triangle; what lies beside the main diagonal is cut from the whole."""
        return Correlation(self._a, lower=True) if diagonal == 0 else self.whole().tril(diagonal)

    def __matmul__(self, weight: Tensor) -> Tensor:
        """Its product with weights (out, in)."""
        a = self._a
        product = self._by_blocks(weight) if self._lower else a.T @ (a @ weight)
        return product.div_(len(a))

    def _by_blocks(self, weight: Tensor) -> Tensor:
        size = max(BLOCK, len(self._a))
        parts = []
        earlier = self._a.new_zeros(len(self._a), weight.shape[1])  # Σ_j a_j w_j over earlier units, at each row
        for a, w in zip(self._a.split(size, 1), weight.split(size), strict=True):
            parts.append(a.T @ earlier + (a.T @ a).tril() @ w)
            earlier = earlier + a @ w
        return torch.cat(parts)

    def whole(self) -> Tensor:
        """Written out, (out, out)."""
        whole = (self._a.T @ self._a).div_(len(self._a))
        return whole.tril() if self._lower else whole

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole(), name)

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return function(*map(_written, args), **{name: _written(value) for name, value in (kwargs or {}).items()})


def _written(value: Any) -> Any:
    return value.whole() if isinstance(value, Correlation) else value


def _operator(name: str) -> Callable[..., Any]:
    def called(self: Correlation, *others: Any) -> Any:
        return getattr(self.whole(), name)(*map(_written, others))

    return called


for _name in ("neg", "add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow", "rmatmul", "getitem"):
    setattr(Correlation, f"__{_name}__", _operator(f"__{_name}__"))
