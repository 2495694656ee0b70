"""A gradient that is not there yet: what a rule makes of it is noted down, and done when it arrives.

A rule such as GHL forms a Hebbian term from a layer's activity and lays the gradient's sign on it. The activity is
there in the forward pass, the gradient only in the backward pass. Given this stand-in, the rule's equation runs in the
forward pass as far as the gradient is not needed, so a layer's potential need not be held until then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from hebbbench.plasticity.pieces import IN_PLACE, NeededWhole, Rows, slices
from hebbbench.plasticity.pieces import METHODS as ELEMENTWISE
from hebbbench.plasticity.pieces import OPERATORS as ARITHMETIC

OPERATORS = (
    *("neg", "abs", "add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow", "rpow"),
    *("lt", "le", "gt", "ge", "eq", "ne", "matmul", "rmatmul", "getitem"),
)

METHODS = {getattr(Tensor, name): name for name in (*ELEMENTWISE, *(f"__{name}__" for name in ARITHMETIC))}
"""What is done to each number by itself, by the name under which it is asked for."""


class NeededNow(Exception):
    """A rule wants more of the stand-in than to calculate with it: its shape, a number in it, to change it."""


class Later:
    """A tensor to come, or what a function will make of it.

    Args:
        function: what will be called with the arguments, in which other `Later` may lie; None for what is awaited.
    """

    __hash__ = object.__hash__

    def __init__(self, function: Callable[..., Any] | None = None, *args: Any, **kwargs: Any) -> None:
        self._function, self._args, self._kwargs = function, args, kwargs

    def given(self, tensor: Tensor | Rows) -> Any:
        """The value, now that what was awaited is this tensor. Each call that was noted down is made once.

        In pieces, if what it is calculated with is to be computed in pieces (see `pieces`).

        Raises:
            NeededWhole: a stand-in was given, and more is done with it than a stand-in can.
        """
        if isinstance(tensor, Rows) or not self._in_pieces(tensor.shape):
            return self._value(tensor, None, {})
        written = torch.empty_like(tensor)
        for rows in slices(tensor.shape):
            written[rows] = self._value(tensor[rows], rows, {})
        return written

    def _in_pieces(self, shape: torch.Size) -> bool:
        """Whether there are `Rows` of this shape among the arguments, and all calls are to each number by itself."""
        if any(call._function not in METHODS or call._kwargs for call in self._calls() if call._function is not None):
            return False
        values = list(self.values())
        rows = [isinstance(value, Rows) and value.shape == shape for value in values]
        return any(rows) and all(isinstance(value, float | int) or row for value, row in zip(values, rows, strict=True))

    def _calls(self) -> Iterator[Later]:
        """This call and those it depends on, each once."""
        seen: set[int] = set()
        calls = [self]
        while calls:
            call = calls.pop()
            if id(call) not in seen:
                seen.add(id(call))
                yield call
                calls += [value for value in call._args if isinstance(value, Later)]

    def values(self) -> Iterator[Any]:
        """What is calculated with beside the tensor to come."""
        for call in self._calls():
            yield from (value for value in call._args if not isinstance(value, Later))

    def _value(self, tensor: Tensor | Rows, rows: slice | None, done: dict[int, Any]) -> Any:
        if id(self) not in done:
            if self._function is None:
                done[id(self)] = tensor
            else:
                args, kwargs = (_filled(noted, tensor, rows, done) for noted in (self._args, self._kwargs))
                done[id(self)] = _called(self._function, args, kwargs)
        return done[id(self)]

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Later:
        return _noted(function, *args, **(kwargs or {}))

    def __getattr__(self, name: str) -> Callable[..., Later]:
        method = getattr(Tensor, name, None)
        if name.startswith("_") or not callable(method):
            raise NeededNow(name)
        return lambda *args, **kwargs: _noted(method, self, *args, **kwargs)

    def __bool__(self) -> bool:
        raise NeededNow("a truth value")


def _noted(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Later:
    name = getattr(function, "__name__", "")
    if (name.endswith("_") and not name.endswith("__")) or name.startswith("__i") or "out" in kwargs:
        raise NeededNow(f"{name} changes a tensor in place")
    if _holds_activity((args, kwargs)):
        raise NeededNow("activity that is not written out cannot wait")
    return Later(function, *args, **kwargs)


def _holds_activity(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_activity(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_holds_activity(item) for item in value)
    return isinstance(value, Rows) and not value.waits


def _called(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """What a call that was noted down makes; one of torch's own tensors is asked of a stand-in by its name."""
    if not (args and isinstance(args[0], Rows)):
        return function(*args, **kwargs)
    name = METHODS.get(function)
    made = getattr(args[0], name)(*args[1:], **kwargs) if name is not None else NotImplemented
    if made is NotImplemented:
        raise NeededWhole(name or "a function")
    return made


def _filled(value: Any, tensor: Tensor | Rows, rows: slice | None, done: dict[int, Any]) -> Any:
    if isinstance(value, Later):
        return value._value(tensor, rows, done)
    if isinstance(value, Rows):
        if isinstance(tensor, Rows):
            return value
        return value.whole() if rows is None else value.piece(rows, {})
    if isinstance(value, dict):
        return {key: _filled(item, tensor, rows, done) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_filled(item, tensor, rows, done) for item in value)
    return value


def _operator(name: str) -> Callable[..., Later]:
    function = getattr(Tensor, name)
    return lambda self, *args: _noted(function, self, *args)


for _name in OPERATORS:
    setattr(Later, f"__{_name}__", _operator(f"__{_name}__"))
for _name in IN_PLACE:
    setattr(Later, f"__{_name}__", lambda self, other: _noted(Tensor.add_, self, other))  # which is refused
