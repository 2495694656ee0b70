"""An equation of rows as one pass over memory: its Triton kernel is written from the terms it is made of.

On a GPU with matrix units a rule's arithmetic takes longer than its products: each operation reads and writes the whole
activity of a layer, and a softmax, its product with the potential and the mean of that are seven such passes. What is
written here reads what goes in once, and writes, or adds up, what comes out. Block sizes are a function of the shape
and sums are taken in a fixed order, so bits repeat.
"""

from __future__ import annotations

import importlib
import linecache
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

WIDEST = 16384
"""Units beyond which a row is not held by one program."""

TILE = 2048
"""Numbers of a tile, at least a row of them."""

PROGRAMS = 528
"""At most so many programs add up a sum, four for each processor of a large GPU; each goes over several tiles."""

ARITHMETIC = {"add": "{} + {}", "sub": "{} - {}", "mul": "{} * {}", "truediv": "{} / {}"}
EACH = {
    "neg": "-{}",
    "abs": "tl.abs({})",
    "relu": "tl.maximum({}, 0.0, tl.PropagateNan.ALL)",
    "square": "{0} * {0}",
    "sign": "({0} > 0).to(tl.float32) - ({0} < 0).to(tl.float32)",
}
ROWWISE = {
    "soft_wta": (
        "{out} = tl.where(inside_c, {0} / {1}, float('-inf'))",
        "{out} = tl.exp({out} - tl.max({out}, 1)[:, None])",
        "{out} = {out} / tl.sum({out}, 1)[:, None]",
    ),
    "losers_flipped": (
        "{out}_best = tl.max(tl.where(inside_c, {1}, float('-inf')), 1)[:, None]",
        "{out}_first = tl.min(tl.where(inside_c & ({1} == {out}_best), c, BLOCK_C), 1)[:, None]",
        "{out} = tl.where(c == {out}_first, {0}, -({0}))",
    ),
    "cosine": (
        "{out} = {0} / tl.maximum({1} * {2}, 1.1754943508222875e-38, tl.PropagateNan.ALL)",
        "{out} = tl.minimum(tl.maximum({out}, -1.0, tl.PropagateNan.ALL), 1.0, tl.PropagateNan.ALL)",
    ),
}
"""What is done to rows, line by line. Numbers beyond the last unit are 0 in tiles and −∞ in a softmax."""

LOADS = {
    "matrix": "tl.load({} + at, mask=inside, other=0).to(tl.float32)",
    "row": "tl.load({} + r, mask=inside_r, other=0).to(tl.float32)",
    "column": "tl.load({} + c, mask=inside_c, other=0).to(tl.float32)",
    "scalar": "tl.load({}).to(tl.float32)",
    "number": "{}",
}

HEAD = """
def kernel({parameters}, out, rows, units, TILES, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    c = tl.arange(0, BLOCK_C)[None, :]
    inside_c = c < units
{before}
    for tile in range(TILES):
        r = ((tl.program_id(0) * TILES + tile) * BLOCK_R + tl.arange(0, BLOCK_R))[:, None]
        inside_r = r < rows
        inside = inside_r & inside_c
        at = r.to(tl.int64) * units + c
{body}
{each}
{after}
"""

Purpose = Literal["write", "sum", "extremes"]
PURPOSES: dict[Purpose, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "write": ((), ("tl.store(out + at, {}.to(out.dtype.element_ty), mask=inside)",), ()),
    "sum": (
        ("total = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)",),
        ("total += tl.where(inside, {}, 0.0)",),
        ("tl.store(out + tl.program_id(0) * units + c, tl.sum(total, 0)[None, :], mask=inside_c)",),
    ),
    "extremes": (
        ("least = tl.full([BLOCK_R, BLOCK_C], float('inf'), tl.float32)", "most = -least"),
        (
            "least = tl.minimum(least, tl.where(inside, {}, float('inf')), tl.PropagateNan.ALL)",
            "most = tl.maximum(most, tl.where(inside, {}, float('-inf')), tl.PropagateNan.ALL)",
        ),
        (
            "broken = tl.max(tl.max((least != least).to(tl.int32), 1), 0) > 0",
            "tl.store(out + 2 * tl.program_id(0), tl.where(broken, float('nan'), tl.min(tl.min(least, 1), 0)))",
            "tl.store(out + 2 * tl.program_id(0) + 1, tl.where(broken, float('nan'), tl.max(tl.max(most, 1), 0)))",
        ),
    ),
}
"""What a kernel is for: the lines before, within and behind its loop over tiles."""


Kind = Literal["matrix", "row", "column", "scalar", "number"]


class Leaf:
    """What an equation starts from: (rows, units), a number a row (rows,), a number a unit (units,), one number."""

    def __init__(self, kind: Kind, value: Tensor | float) -> None:
        self.kind, self.value = kind, value
        self._version = self._current()

    def changed(self) -> bool:
        """Whether it was written to since it was noted down."""
        return self._current() != self._version

    def _current(self) -> int:
        return self.value._version if isinstance(self.value, Tensor) else 0


class Changed(Exception):
    """An equation cannot be computed any more: what it starts from is something else by now."""


@dataclass(frozen=True, eq=False)
class Term:
    """An operation of `ARITHMETIC`, `EACH` or `ROWWISE` and what it is done to."""

    operation: str
    arguments: tuple[Term | Leaf, ...]


def write(term: Term | Leaf, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """All rows, (rows, units)."""
    written = torch.empty(shape, dtype=dtype, device=device)
    _launch("write", term, shape, written, tiles=1)
    return written


def column_mean(term: Term | Leaf, shape: torch.Size, device: torch.device) -> Tensor:
    """The mean over rows, (units,), float32."""
    tiles, programs = _shares(shape)
    sums, mean = torch.empty(programs, shape[1], device=device), torch.empty(shape[1], device=device)
    _launch("sum", term, shape, sums, tiles)
    across = min(32, _power_of_two(shape[1]))
    with torch.cuda.device_of(mean):
        _own().mean_of_sums[(-(-shape[1] // across),)](sums, mean, programs, shape[1], shape[0], 128, across)
    return mean


def extremes(term: Term | Leaf, shape: torch.Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """The least and the largest of all numbers, float32 scalars; not a number if one of them is none."""
    tiles, programs = _shares(shape)
    found, extreme = torch.empty(programs, 2, device=device), torch.empty(2, device=device)
    _launch("extremes", term, shape, found, tiles)
    with torch.cuda.device_of(extreme):
        _own().extremes_of_extremes[(1,)](found, extreme, programs, _power_of_two(programs))
    return extreme[0], extreme[1]


def _own() -> Any:
    """Kernels that need no equation, and Triton."""
    return importlib.import_module("hebbbench.kernels.row_kernels")


def _power_of_two(number: int) -> int:
    """The next, at least 16."""
    return 1 << max(4, (number - 1).bit_length())


def _blocks(shape: torch.Size) -> tuple[int, int]:
    """Rows and units of a tile."""
    wide = _power_of_two(shape[1])
    return max(1, TILE // wide), wide


def _shares(shape: torch.Size) -> tuple[int, int]:
    """How many tiles a program goes over, and how many programs there are."""
    tall, _ = _blocks(shape)
    whole = -(-shape[0] // tall)
    tiles = -(-whole // PROGRAMS)
    return tiles, -(-whole // tiles)


def _launch(purpose: Purpose, term: Term | Leaf, shape: torch.Size, out: Tensor, tiles: int) -> None:
    leaves, source = _source(purpose, term)
    if any(leaf.changed() for leaf in leaves):
        raise Changed("a tensor was written to between its use in an equation and the equation's result")
    tall, wide = _blocks(shape)
    programs = -(-shape[0] // (tall * tiles))
    given = (leaf.value for leaf in leaves)
    kernel = _compiled(source)
    with torch.cuda.device_of(out):
        kernel[(programs,)](*given, out, *shape, tiles, BLOCK_R=tall, BLOCK_C=wide, num_warps=4 if wide <= 4096 else 8)


def _source(purpose: Purpose, term: Term | Leaf) -> tuple[list[Leaf], str]:
    """The kernel's text, and what its parameters p0, p1, … are."""
    names: dict[int, str] = {}
    leaves: list[Leaf] = []
    lines: list[str] = []
    for part in _parts(term, set()):
        name = names[id(part)] = f"v{len(names)}"
        if isinstance(part, Leaf):
            lines.append(f"{name} = {LOADS[part.kind].format(f'p{len(leaves)}')}")
            leaves.append(part)
        else:
            arguments = [names[id(argument)] for argument in part.arguments]
            plain = {**ARITHMETIC, **EACH}.get(part.operation)
            steps = ROWWISE[part.operation] if plain is None else (f"{{out}} = {plain}",)
            lines += [step.format(*arguments, out=name) for step in steps]
    before, each, after = PURPOSES[purpose]
    result = f"({names[id(term)]} + tl.zeros([BLOCK_R, BLOCK_C], tl.float32))"  # of a number a unit, one a place
    text = HEAD.format(
        parameters=", ".join(f"p{index}" for index in range(len(leaves))),
        before=_indented(before, 1),
        body=_indented(lines, 2),
        each=_indented((line.format(result) for line in each), 2),
        after=_indented(after, 1),
    )
    return leaves, text


def _parts(part: Term | Leaf, seen: set[int]) -> Iterator[Term | Leaf]:
    """Each part of an equation once, behind those it is made of."""
    if id(part) in seen:
        return
    seen.add(id(part))
    if isinstance(part, Term):
        for argument in part.arguments:
            yield from _parts(argument, seen)
    yield part


def leaves_of(term: Term | Leaf) -> list[Leaf]:
    """What an equation starts from."""
    return [part for part in _parts(term, set()) if isinstance(part, Leaf)]


def _indented(lines: Any, depth: int) -> str:
    return "\n".join("    " * depth + line for line in lines)


@cache
def _compiled(source: str) -> Any:
    """The kernel of a text. Triton reads a function's source again, so that is where Python looks for it."""
    import triton
    import triton.language as tl

    name = f"<rows of {hash(source):x}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    space: dict[str, Any] = {"tl": tl, "__name__": __name__}
    exec(compile(source, name, "exec"), space)
    made: Callable[..., Any] = triton.jit(space["kernel"])
    return made
