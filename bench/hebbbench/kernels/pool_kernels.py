"""The kernels behind `pools` and `padding`, over channels_last memory: (pictures, rows, columns, channels).

A program writes BP pixels × BC channels, each element once. Sums are in float32 and in an order that no block size
changes, so the same tensors give the same bits. Offsets are 32 bits wide: tensors are smaller than 2³¹ elements.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _block(pixels, height, width, channels, BP: tl.constexpr, BC: tl.constexpr):
    """Picture, row and column of this program's pixels, (BP, 1), its channels, (1, BC), and which of them exist."""
    across = tl.cdiv(channels, BC)
    program = tl.program_id(0)
    pixel = (program // across * BP + tl.arange(0, BP))[:, None]
    channel = (program % across * BC + tl.arange(0, BC))[None, :]
    row = pixel // width
    return row // height, row % height, pixel % width, channel, pixel < pixels, channel < channels


@triton.jit(do_not_specialize=["pixels", "height", "width", "height_out", "width_out"])
def max_forward(
    x,
    y,
    winners,
    pixels,
    channels,
    height,
    width,
    height_out,
    width_out,
    KH: tl.constexpr,
    KW: tl.constexpr,
    SH: tl.constexpr,
    SW: tl.constexpr,
    PH: tl.constexpr,
    PW: tl.constexpr,
    KEEP: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
):
    """The largest of each window, the first of equals, the last that is no number; its place if KEEP."""
    n, h_out, w_out, c, here, there = _block(pixels, height_out, width_out, channels, BP, BC)
    top, left = h_out * SH - PH, w_out * SW - PW
    best = tl.full((BP, BC), float("-inf"), tl.float32)
    # Where all are -inf the first that is no padding wins.
    won = tl.maximum(-top, 0) * KW + tl.maximum(-left, 0) + tl.zeros((BP, BC), tl.int32)
    for i in tl.static_range(KH):
        for j in tl.static_range(KW):
            h, w = top + i, left + j
            seen = here & (h >= 0) & (h < height) & (w >= 0) & (w < width)
            at = ((n * height + h) * width + w) * channels + c
            value = tl.load(x + at, mask=seen & there, other=float("-inf")).to(tl.float32)
            better = (value > best) | (value != value)
            best = tl.where(better, value, best)
            won = tl.where(better, i * KW + j, won)
    to = ((n * height_out + h_out) * width_out + w_out) * channels + c
    tl.store(y + to, best.to(y.dtype.element_ty), mask=here & there)
    if KEEP:
        tl.store(winners + to, won.to(tl.uint8), mask=here & there)


@triton.jit(do_not_specialize=["pixels", "height", "width", "height_out", "width_out"])
def max_backward(
    slopes,
    winners,
    found,
    pixels,
    channels,
    height,
    width,
    height_out,
    width_out,
    KH: tl.constexpr,
    KW: tl.constexpr,
    SH: tl.constexpr,
    SW: tl.constexpr,
    PH: tl.constexpr,
    PW: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
):
    """At each place of the input the sum of the slopes of the windows it won, in row-major order of the windows."""
    n, h, w, c, here, there = _block(pixels, height, width, channels, BP, BC)
    last_row, last_column = (h + PH) // SH, (w + PW) // SW
    total = tl.zeros((BP, BC), tl.float32)
    for i in tl.static_range((KH + SH - 1) // SH):
        for j in tl.static_range((KW + SW - 1) // SW):
            h_out, w_out = last_row - ((KH + SH - 1) // SH - 1 - i), last_column - ((KW + SW - 1) // SW - 1 - j)
            down, right = h + PH - h_out * SH, w + PW - w_out * SW
            seen = here & (h_out >= 0) & (h_out < height_out) & (w_out >= 0) & (w_out < width_out)
            seen = seen & (down < KH) & (right < KW) & there
            at = ((n * height_out + h_out) * width_out + w_out) * channels + c
            slope = tl.load(slopes + at, mask=seen, other=0.0).to(tl.float32)
            winner = tl.load(winners + at, mask=seen, other=0).to(tl.int32)
            total += tl.where(winner == down * KW + right, slope, 0.0)
    to = ((n * height + h) * width + w) * channels + c
    tl.store(found + to, total.to(found.dtype.element_ty), mask=here & there)


@triton.jit
def _share(total, AREA: tl.constexpr):
    """total / AREA, rounded as a division is."""
    if AREA & (AREA - 1) == 0:
        share = total * (1.0 / AREA)
    else:
        share = tl.div_rn(total, tl.full(total.shape, AREA, tl.float32))
    return share


@triton.jit(do_not_specialize=["pixels", "height", "width", "height_out", "width_out"])
def avg_forward(
    x,
    y,
    pixels,
    channels,
    height,
    width,
    height_out,
    width_out,
    KH: tl.constexpr,
    KW: tl.constexpr,
    SH: tl.constexpr,
    SW: tl.constexpr,
    PH: tl.constexpr,
    PW: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
):
    """The mean of each window, whose padding counts as zeros."""
    n, h_out, w_out, c, here, there = _block(pixels, height_out, width_out, channels, BP, BC)
    total = tl.zeros((BP, BC), tl.float32)
    for i in tl.static_range(KH):
        for j in tl.static_range(KW):
            h, w = h_out * SH - PH + i, w_out * SW - PW + j
            seen = here & (h >= 0) & (h < height) & (w >= 0) & (w < width)
            at = ((n * height + h) * width + w) * channels + c
            total += tl.load(x + at, mask=seen & there, other=0.0).to(tl.float32)
    to = ((n * height_out + h_out) * width_out + w_out) * channels + c
    tl.store(y + to, _share(total, KH * KW).to(y.dtype.element_ty), mask=here & there)


@triton.jit(do_not_specialize=["pixels", "height", "width", "height_out", "width_out"])
def avg_backward(
    slopes,
    found,
    pixels,
    channels,
    height,
    width,
    height_out,
    width_out,
    KH: tl.constexpr,
    KW: tl.constexpr,
    SH: tl.constexpr,
    SW: tl.constexpr,
    PH: tl.constexpr,
    PW: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
):
    """At each place of the input its share of the slopes of the windows over it."""
    n, h, w, c, here, there = _block(pixels, height, width, channels, BP, BC)
    last_row, last_column = (h + PH) // SH, (w + PW) // SW
    total = tl.zeros((BP, BC), tl.float32)
    for i in tl.static_range((KH + SH - 1) // SH):
        for j in tl.static_range((KW + SW - 1) // SW):
            h_out, w_out = last_row - ((KH + SH - 1) // SH - 1 - i), last_column - ((KW + SW - 1) // SW - 1 - j)
            seen = here & (h_out >= 0) & (h_out < height_out) & (w_out >= 0) & (w_out < width_out)
            seen = seen & (h + PH - h_out * SH < KH) & (w + PW - w_out * SW < KW) & there
            at = ((n * height_out + h_out) * width_out + w_out) * channels + c
            total += tl.load(slopes + at, mask=seen, other=0.0).to(tl.float32)
    to = ((n * height + h) * width + w) * channels + c
    tl.store(found + to, _share(total, KH * KW).to(found.dtype.element_ty), mask=here & there)


@triton.jit(do_not_specialize=["pixels", "height", "width", "height_out", "width_out"])
def reflect_forward(
    x,
    y,
    pixels,
    channels,
    height,
    width,
    height_out,
    width_out,
    LEFT: tl.constexpr,
    TOP: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
):
    """Each place of the padded tensor reads the place that it mirrors."""
    n, h_out, w_out, c, here, there = _block(pixels, height_out, width_out, channels, BP, BC)
    h = height - 1 - tl.abs(height - 1 - tl.abs(h_out - TOP))
    w = width - 1 - tl.abs(width - 1 - tl.abs(w_out - LEFT))
    value = tl.load(x + ((n * height + h) * width + w) * channels + c, mask=here & there)
    to = ((n * height_out + h_out) * width_out + w_out) * channels + c
    tl.store(y + to, value.to(y.dtype.element_ty), mask=here & there)


@triton.jit
def _mirrored(h, height, height_out, BEFORE: tl.constexpr, i: tl.constexpr):
    """The ith of the up to three places of the padded axis that mirror place h, in ascending order; if it is one."""
    if i == 0:
        at = BEFORE - h
        real = (h > 0) & (at >= 0)
    elif i == 1:
        at = BEFORE + h
        real = h >= 0
    else:
        at = BEFORE + 2 * (height - 1) - h
        real = (h < height - 1) & (at < height_out)
    return at, real


@triton.jit(do_not_specialize=["pixels", "height", "width", "height_out", "width_out"])
def reflect_backward(
    slopes,
    found,
    pixels,
    channels,
    height,
    width,
    height_out,
    width_out,
    LEFT: tl.constexpr,
    TOP: tl.constexpr,
    BP: tl.constexpr,
    BC: tl.constexpr,
):
    """At each place of the input the sum of the slopes of the places that mirror it, in row-major order."""
    n, h, w, c, here, there = _block(pixels, height, width, channels, BP, BC)
    total = tl.zeros((BP, BC), tl.float32)
    for i in tl.static_range(3):
        for j in tl.static_range(3):
            h_out, in_rows = _mirrored(h, height, height_out, TOP, i)
            w_out, in_columns = _mirrored(w, width, width_out, LEFT, j)
            at = ((n * height_out + h_out) * width_out + w_out) * channels + c
            total += tl.load(slopes + at, mask=here & in_rows & in_columns & there, other=0.0).to(tl.float32)
    to = ((n * height + h) * width + w) * channels + c
    tl.store(found + to, total.to(found.dtype.element_ty), mask=here & there)
