"""The kernel behind `patches`, over channels_last memory: (pictures, rows, columns, channels)."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _mirrored(place, side):
    """A place beyond a border, as far within it."""
    place = tl.abs(place)
    return tl.where(place >= side, 2 * (side - 1) - place, place)


@triton.jit
def unfolded(
    x,
    out,
    pixels,
    height,
    width,
    height_out,
    width_out,
    CHANNELS: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    SH: tl.constexpr,
    SW: tl.constexpr,
    PH: tl.constexpr,
    PW: tl.constexpr,
    MIRROR: tl.constexpr,
    WIDE: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
):
    """Each pixel's patch, (pixels, WIDE): kernel row, kernel column, channel, and zeros beyond them."""
    pixel = (tl.program_id(0) * BP + tl.arange(0, BP))[:, None]
    k = tl.arange(0, BC)[None, :]
    row = pixel // width_out
    h = row % height_out * SH - PH + k // (KW * CHANNELS)
    w = pixel % width_out * SW - PW + k // CHANNELS % KW
    if MIRROR:
        h, w = _mirrored(h, height), _mirrored(w, width)
    seen = (pixel < pixels) & (k < KH * KW * CHANNELS) & (h >= 0) & (h < height) & (w >= 0) & (w < width)
    at = ((row // height_out * height + h) * width + w) * CHANNELS + k % CHANNELS
    value = tl.load(x + at, mask=seen, other=0.0)
    tl.store(out + pixel * WIDE + k, value.to(out.dtype.element_ty), mask=(pixel < pixels) & (k < WIDE))
