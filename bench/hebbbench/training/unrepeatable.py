"""What a step does that no recording can hold: it waits for a number, copies from the host, has its own generator."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

READS_BACK = {
    "aten::_local_scalar_dense",  # item(), tolist(), int(), float() and bool() of a tensor
    "aten::equal",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
}


COPIES = {"aten::_to_copy", "aten::copy_"}
"""From the host to the device a recording would copy the same memory each time, whatever has become of it."""


class Unrepeatable(TorchDispatchMode):
    """Counts what a recording cannot hold.

    Attributes:
        reads: operations whose result the host must wait for, or whose source lies there.
        draws: those that draw from a generator of their own.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reads: Counter[str] = Counter()
        self.draws: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = func._schema.name, kwargs or {}
        if name in READS_BACK or (name.startswith("aten::index") and _masked(args)):
            self.reads[name] += 1
        if any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values())):
            self.draws[name] += 1
        made = func(*args, **kwargs)
        if name in COPIES and len({value.device.type for value in (*args[:2], made) if isinstance(value, Tensor)}) > 1:
            self.reads[name] += 1
        return made


def _masked(args: tuple[Any, ...]) -> bool:
    """Whether an index is a mask, so that the size of the result is among the numbers."""
    indices = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else []
    return any(isinstance(index, Tensor) and index.dtype == torch.bool for index in indices)
