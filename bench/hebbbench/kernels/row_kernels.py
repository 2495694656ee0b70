"""How the parts that programs of `rows` have found are put together, in an order that no run changes."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def mean_of_sums(sums, mean, parts, units, count, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """The sum of each unit's partial sums (parts, units) over a count, (units,)."""
    c = (tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
    total = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    for first in range(0, parts, BLOCK_R):
        r = (first + tl.arange(0, BLOCK_R))[:, None]
        total += tl.load(sums + r * units + c, mask=(r < parts) & (c < units), other=0.0)
    tl.store(mean + c, (tl.sum(total, 0) / count)[None, :], mask=c < units)


@triton.jit
def extremes_of_extremes(found, extreme, parts, BLOCK: tl.constexpr):
    """The least and the largest of pairs (parts, 2), (2,); not a number if one of them is none."""
    part = tl.arange(0, BLOCK)
    least = tl.load(found + 2 * part, mask=part < parts, other=float("inf"))
    most = tl.load(found + 2 * part + 1, mask=part < parts, other=float("-inf"))
    broken = tl.max((least != least).to(tl.int32), 0) > 0
    tl.store(extreme, tl.where(broken, float("nan"), tl.min(least, 0)))
    tl.store(extreme + 1, tl.where(broken, float("nan"), tl.max(most, 0)))
