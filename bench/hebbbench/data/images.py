"""Decoding rows of (encoded image, label) into a split's arrays."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from hebbbench.errors import DataError

from .wording import one_line

MODES = {1: "L", 3: "RGB"}

Advance = Callable[[int], None]
"""Called with the number of samples finished since the last call."""

_REPORT_EVERY = 1000
_LOSSLESS = {"PNG": slice(1, 4), "WEBPVP8L": slice(8, 16)}
"""Where each accepted format writes its name. Lossy WebP and JPEG would give other pixels."""


def _is_lossless(data: bytes) -> bool:
    return any(data[place] == name.encode() for name, place in _LOSSLESS.items())


def _fault(where: str, row: int, fault: str, remedy: str) -> DataError:
    return DataError(f"{where}, row {row}: {fault}. {remedy}")


def decode_rows(
    rows: Iterable[tuple[object, object]],
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    *,
    classes: int,
    where: str,
    remedy: str,
    advance: Advance,
) -> None:
    """Fill `images` (N, H, W, C) and `labels` (N,) from rows of (encoded image, label); N rows are expected.

    The images are PNG or lossless WebP.

    Raises DataError naming `where`, the row, what was found and `remedy` for the first row that is not as
    expected, and when there are more or fewer than N rows.
    """
    from PIL import Image

    height, width, channels = images.shape[1:]
    row = -1
    for row, (data, label) in enumerate(rows):
        if row >= len(images):
            raise DataError(f"{where}: more than the expected {len(images)} rows. {remedy}")
        if not isinstance(data, bytes):
            raise _fault(where, row, f"expected image bytes, found {type(data).__name__}", remedy)
        if not _is_lossless(data):
            raise _fault(where, row, f"the image is not PNG or lossless WebP; it begins {data[:12]!r}", remedy)
        # bool is an int to Python; a label column of booleans is a different dataset.
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < classes:
            raise _fault(where, row, f"label {label!r}, expected an integer 0 to {classes - 1}", remedy)
        try:
            with Image.open(io.BytesIO(data), formats=("PNG", "WEBP")) as image:
                found = (image.height, image.width, image.mode)
                # Compared before the pixels are decoded, so a huge image costs nothing.
                pixels = np.asarray(image) if found == (height, width, MODES[channels]) else None
        except Exception as error:  # Pillow raises half a dozen kinds on foreign bytes; all mean this.
            raise _fault(where, row, f"the image cannot be decoded ({one_line(error)})", remedy) from error
        if pixels is None:
            raise _fault(
                where,
                row,
                f"the image is {found[0]}x{found[1]} {found[2]}, expected {height}x{width} {MODES[channels]}",
                remedy,
            )
        images[row] = pixels.reshape(height, width, channels)
        labels[row] = label
        if (row + 1) % _REPORT_EVERY == 0:
            advance(_REPORT_EVERY)
    if row + 1 != len(images):
        raise DataError(f"{where}: {row + 1} rows, expected {len(images)}. {remedy}")
    advance(len(images) % _REPORT_EVERY)


def image_bytes(cell: Any) -> object:
    """The encoded bytes of one cell of an image column: Hugging Face's {bytes, path} struct, or the bytes."""
    return cell.get("bytes") if isinstance(cell, dict) else cell
