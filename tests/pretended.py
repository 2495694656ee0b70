"""A graphics processor that is only pretended: tensors said to be on "cuda" that the CPU computes, for tests.

Every storage carries the name of its device. An operation whose tensors are on two devices is refused where torch
would refuse it, and so are a generator of another device and a numpy view of a device's memory. Numbers are real, so
what is computed on the pretended device can be compared with what the CPU computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)

ACROSS = {"aten::copy_", "aten::_copy_from"}
"""Operations that may read one device and write another."""

INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_unsafe_index", "aten::_index_put_impl_"}
"""Operations whose indices may lie on the CPU, wherever the rest is."""


class WrongDevice(RuntimeError):
    """Tensors or a generator of two devices met."""


_Generator = torch.Generator


class PretendedGenerator(_Generator):
    """A generator said to be on the pretended device."""

    device = CUDA


class _Any(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, _Generator)


class _Made(metaclass=_Any):
    """In place of `torch.Generator`."""

    def __new__(cls, device: torch.device | str = "cpu") -> Any:
        return PretendedGenerator() if torch.device(device).type == "cuda" else _Generator()


def place(tensor: Tensor) -> torch.device:
    """The device a tensor is said to be on."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    where: torch.device = getattr(tensor.untyped_storage(), "pretended", CPU)
    return where


def put(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor, said to be on `device` from now on."""
    tensor.untyped_storage().pretended = device
    return tensor


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


class _Operations(TorchDispatchMode):
    """Below autograd: one device an operation, and its results there.

    Attributes:
        around: the device of the function that the operation is a part of; what is made from nothing lies there.
    """

    around = CPU

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        given = _tensors((args[0], args[2:]) if name in INDEXED else (args, kwargs))
        known = [place(tensor) for tensor in given]
        # As torch, which lets a single number on the CPU meet tensors on a device.
        homes = {home for tensor, home in zip(given, known, strict=True) if tensor.dim() or home != CPU}
        if name in INDEXED:
            homes |= {place(index) for index in _tensors(args[1])} - {CPU}
        if name in ACROSS:
            homes = {place(args[0])}
        if len(homes) > 1:
            raise WrongDevice(f"{name}: tensors on {', '.join(sorted(map(str, homes)))}.")
        home = homes.pop() if homes else self.around
        mine = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        result = func(*args, **kwargs)
        for made in _tensors(result):
            if made.untyped_storage()._cdata not in mine:
                put(made, home)
        return result


class _Functions(TorchFunctionMode):
    """Above autograd: what asks for a device, or for the name of one."""

    def __init__(self, operations: _Operations) -> None:
        super().__init__()
        self.operations = operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in GETTERS:
            return GETTERS[func](place(args[0]))
        if func is torch.device:
            return func(*args, **kwargs)
        if func is Tensor.numpy and place(args[0]) != CPU:
            raise WrongDevice(f"numpy of a tensor on {place(args[0])}.")
        if func in (Tensor.cpu, Tensor.cuda):
            return self._moved(args[0], CPU if func is Tensor.cpu else CUDA, {})
        if func is Tensor.to:
            return self._to(*args, **kwargs)
        target = _target(kwargs.pop("device", None))
        given = [place(tensor) for tensor in _tensors((args, kwargs))]
        self.operations.around = CUDA if target is None and CUDA in given else CPU
        try:
            result = func(*args, **kwargs)
        finally:
            self.operations.around = CPU
        for generator in (leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, _Generator)):
            for made in _tensors(result):
                if generator.device.type != (target or place(made)).type:
                    raise WrongDevice(f"{func.__name__}: a generator on {generator.device}, a tensor elsewhere.")
        if target is not None:
            for made in _tensors(result):
                put(made, target)
        return result

    def _to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        target, rest = _target(kwargs.pop("device", None)), []
        for value in args:
            if isinstance(value, Tensor):
                target, kwargs["dtype"] = place(value), value.dtype
            elif isinstance(value, str | torch.device):
                target = _target(value)
            elif isinstance(value, torch.dtype):
                kwargs["dtype"] = value
            else:
                rest.append(value)
        kwargs.update(zip(("non_blocking", "copy"), [value for value in rest if value is not None], strict=False))
        return self._moved(tensor, place(tensor) if target is None else target, kwargs)

    @staticmethod
    def _moved(tensor: Tensor, target: torch.device, options: dict[str, Any]) -> Tensor:
        if target == place(tensor):
            return tensor.to(CPU, **options)
        return put(tensor.to(CPU, **{**options, "copy": True}), target)


def _target(device: Any) -> torch.device | None:
    if device is None:
        return None
    device = torch.device(device) if isinstance(device, str) else device
    return CUDA if device.type == "cuda" else device


GETTERS = {
    Tensor.device.__get__: lambda home: home,
    Tensor.is_cuda.__get__: lambda home: home.type == "cuda",
    Tensor.is_cpu.__get__: lambda home: home.type == "cpu",
}


def _autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
    if device_type != "cuda" and kwargs.get("enabled", True):
        raise WrongDevice(f"autocast for {device_type}.")
    return _cpu_autocast("cpu", *args, **kwargs)


_cpu_autocast = torch.autocast


class Tape:
    """In place of a CUDA graph: every operation of a call, done again to the same memory by its replay.

    As in a graph nothing of Python's runs again, and what was read from a tensor then is read for good. The device is
    one on which tensors that the call made may be written anew at any time.
    """

    failed = False

    def __init__(self, device: torch.device | None = None) -> None:
        self.made = 0

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        self.made += 1
        call()
        with _Recording() as recording:
            call()
        return recording.replay

    def refuse(self, call: Callable[[], None]) -> Callable[[], None]:
        """In place of `record`, where a recording fails."""
        call()
        raise RuntimeError("out of graphs\nand more")


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, _tensors(result)))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, results in self.done:
            for old, new in zip(results, _tensors(func(*args, **kwargs)), strict=True):
                if old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@contextmanager
def pretended_cuda(replays: bool = False) -> Iterator[torch.device]:
    """Within this context "cuda" is a device that torch can use; the device. `replays`: whether cells replay steps."""
    with ExitStack() as stack:
        if not replays:
            stack.enter_context(mock.patch("hebbbench.training.loop.can_replay", return_value=False))
        for name, value in {
            "torch.Generator": _Made,
            "torch.autocast": _autocast,
            "hebbbench.training.loop.CudaRecorder": Tape,
            "hebbbench.training.probe.CudaRecorder": Tape,
            "torch.cuda.synchronize": lambda device=None: None,
            "torch.cuda.max_memory_allocated": lambda device=None: 0,
            "torch.cuda.reset_peak_memory_stats": lambda device=None: None,
            "torch.cuda.mem_get_info": lambda device=None: (2**40, 2**40),
            "torch.cuda.get_device_name": lambda device=None: "pretended",
            "hebbbench.training.work.ON_A_GPU": 1,  # a ceiling is measured in a moment, by the CPU
        }.items():
            stack.enter_context(mock.patch(name, value))
        operations = stack.enter_context(_Operations())
        stack.enter_context(_Functions(operations))
        yield CUDA


def all_there(values: Any) -> bool:
    """Whether every tensor in a structure, single numbers aside, is on the pretended device."""
    return all(place(tensor) == CUDA for tensor in _tensors(values) if tensor.dim())
