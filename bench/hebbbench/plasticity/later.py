"""A gradient that is not there yet: what a rule makes of it is noted down, and done when it arrives.

A rule such as GHL forms a Hebbian term from a layer's activity and lays the gradient's sign on it. The activity is
there in the forward pass, the gradient only in the backward pass. Given this stand-in, the rule's equation runs in the
forward pass as far as the gradient is not needed, so a layer's potential need not be held until then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from hebbbench.plasticity.pieces import Rows

OPERATORS = (
    *("neg", "abs", "add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow", "rpow"),
    *("lt", "le", "gt", "ge", "eq", "ne", "matmul", "rmatmul", "getitem"),
)


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

    def given(self, tensor: Tensor, done: dict[int, Any] | None = None) -> Any:
        """The value, now that what was awaited is this tensor. Each call that was noted down is made once."""
        done = {} if done is None else done
        if id(self) not in done:
            if self._function is None:
                done[id(self)] = tensor
            else:
                args, kwargs = _filled(self._args, tensor, done), _filled(self._kwargs, tensor, done)
                done[id(self)] = self._function(*args, **kwargs)
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
    if _in_pieces((args, kwargs)):
        raise NeededNow("activity that is not written out cannot wait")
    return Later(function, *args, **kwargs)


def _in_pieces(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_in_pieces(item) for item in value.values())
    return any(_in_pieces(item) for item in value) if isinstance(value, list | tuple) else isinstance(value, Rows)


def _filled(value: Any, tensor: Tensor, done: dict[int, Any]) -> Any:
    if isinstance(value, Later):
        return value.given(tensor, done)
    if isinstance(value, dict):
        return {key: _filled(item, tensor, done) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_filled(item, tensor, done) for item in value)
    return value


def _operator(name: str) -> Callable[..., Later]:
    function = getattr(Tensor, name)
    return lambda self, *args: _noted(function, self, *args)


for _name in OPERATORS:
    setattr(Later, f"__{_name}__", _operator(f"__{_name}__"))
