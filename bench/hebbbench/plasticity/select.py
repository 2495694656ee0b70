"""Which layers of a network a rule governs, as a protocol's `plastic` list says it."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import nn

from hebbbench.errors import ProtocolError

Layer = nn.Linear | nn.Conv2d

KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "all convolutions": (nn.Conv2d,),
    "all linear layers": (nn.Linear,),
    "all layers": (nn.Conv2d, nn.Linear),
}
"""What may stand in place of a name; it means layers of the body. No module's name has a space in it."""

LISTED = 40


def select(model: nn.Module, patterns: list[str]) -> dict[str, Layer]:
    """The linear and convolutional modules that the patterns choose, in the order of the network.

    A pattern is a module's name, with or without the leading `body.`, or a shell pattern for names (conv*), or one of
    `KINDS`. One that begins with ! takes layers away from those the others choose.

    Raises:
        ProtocolError: a pattern fits no layer, or none is left.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Layer)}
    chosen: set[str] = set()
    left_out: set[str] = set()
    for pattern in patterns:
        fitting = {name for name, module in layers.items() if _fits(name, module, pattern.removeprefix("!"))}
        if not fitting:
            raise ProtocolError(
                f"plastic: the pattern '{pattern}' fits no linear or convolutional layer. Layers: {_listed(layers)}. "
                f"Or say one of: {', '.join(KINDS)}."
            )
        (left_out if pattern.startswith("!") else chosen).update(fitting)
    chosen -= left_out
    if not chosen:
        raise ProtocolError(f"plastic: {patterns} leaves no layer. Layers: {_listed(layers)}.")
    return {name: module for name, module in layers.items() if name in chosen}


def _fits(name: str, module: nn.Module, pattern: str) -> bool:
    if pattern in KINDS:
        return name.startswith("body.") and isinstance(module, KINDS[pattern])
    return fnmatchcase(name, pattern) or fnmatchcase(name.removeprefix("body."), pattern)


def _listed(layers: dict[str, Layer]) -> str:
    names = list(layers)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
