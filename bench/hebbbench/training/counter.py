"""Operations and bytes of whatever runs, counted operator by operator, and by the place in the network it runs for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from hebbbench.plasticity.layer import PlasticLayer

Pass = Literal["forward", "backward", "rule"]
Place = tuple[str, Pass]
"""Name of a layer, and for what: its output, the gradients through it, or the update that its rule makes."""

ELSEWHERE: Place = ("", "forward")
"""Between the layers, and in the optimizer."""
UNWRITTEN = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
SAME_MEMORY = {"_unsafe_view", "_reshape_alias", "lift_fresh"}


class Tally(NamedTuple):
    """Floating-point operations in products, two a multiply–add, and bytes."""

    operations: int = 0
    bytes: int = 0

    def __add__(self, other: object) -> Tally:
        """Both together."""
        return Tally(*(a + b for a, b in zip(self, other, strict=True))) if isinstance(other, Tally) else NotImplemented


class Counter(TorchDispatchMode):
    """Counts every operator that runs within the context, on any device and in any direction.

    Operations are those of products. Bytes are what each operator reads and writes: the tensors it takes and the
    tensors it gives, every time, so it is the memory traffic of a machine without a cache; a view costs nothing.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tallies: defaultdict[Place, Tally] = defaultdict(Tally)
        self._places: list[Place] = [ELSEWHERE]

    @property
    def total(self) -> Tally:
        return sum(self.tallies.values(), Tally())

    @property
    def operations(self) -> int:
        return self.total.operations

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        of: Callable[..., int] | None = flop_registry.get(func._overloadpacket)
        operations = int(of(*args, **kwargs, out_val=out)) if of is not None else 0
        self.tallies[self._places[-1]] += Tally(operations, _moved(func, (args, kwargs), out))
        return out

    def enter(self, place: Place) -> None:
        """Count what follows for this place, until it is left."""
        self._places.append(place)

    def leave(self) -> None:
        """Count for the place before."""
        self._places.pop()

    @contextmanager
    def layer_by_layer(self, model: nn.Module, plastic: list[PlasticLayer]) -> Iterator[None]:
        """Within this context what a layer of products makes the network do is counted for that layer.

        Args:
            model: whose linear and convolutional layers are told apart.
            plastic: those of them that have a rule.
        """
        handles = []
        for name, module in product_layers(model).items():
            enter, leave = self._forward_hooks(name)
            handles += [
                module.register_forward_pre_hook(enter),
                module.register_forward_hook(leave, prepend=True, always_call=True),
            ]
        for layer in plastic:
            for method in ("begin", "learn"):
                setattr(layer, method, self._within((layer.name, "rule"), getattr(layer, method)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for layer in plastic:
                del layer.begin, layer.learn

    def _forward_hooks(self, name: str) -> tuple[Any, Any]:
        def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.enter((name, "forward"))

        def leave(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | None) -> None:
            self.leave()
            if output is not None and output.grad_fn is not None:
                for node in _between(output.grad_fn, inputs[0].grad_fn):
                    node.register_prehook(lambda _gradients: self.enter((name, "backward")))
                    node.register_hook(lambda _inputs, _outputs: self.leave())

        return enter, leave

    def _within(self, place: Place, function: Callable[..., None]) -> Callable[..., None]:
        def placed(**signals: Tensor) -> None:
            self.enter(place)
            try:
                function(**signals)
            finally:
                self.leave()

        return placed


def product_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The linear and convolutional layers, by their names in the network."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}


def _between(last: Node, first: Node | None) -> list[Node]:
    """The nodes of a layer's backward pass: from its output's to those before its input's."""
    found, waiting = [], [last]
    while waiting:
        node = waiting.pop()
        if node is first or node in found:
            continue
        found.append(node)
        waiting += [before for before, _ in node.next_functions if before is not None]
    return found


def _moved(func: Any, arguments: object, out: object) -> int:
    """Bytes of the tensors that an operator takes and gives."""
    if func.is_view or func._overloadpacket.__name__ in UNWRITTEN | SAME_MEMORY:
        return 0
    taken = {id(leaf): leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)}
    given = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
    return sum(_size(tensor) for tensor in (*taken.values(), *given))


def _size(tensor: Tensor) -> int:
    """Of what is there: along an expanded dimension the same numbers are read again."""
    sides = (side for side, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return prod(sides) * tensor.element_size() if tensor.numel() else 0
