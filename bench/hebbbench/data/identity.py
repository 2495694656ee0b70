"""What makes two copies of a dataset the same: their (pixels, label) samples, whatever the order."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from hebbbench.errors import DataError


def sample_digests(images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> list[bytes]:
    """SHA-256 of each sample: its pixel bytes (H, W, C order), then its label as 8 little-endian bytes.

    Of a teacher's sample: its input (uint8, or float32 as 4 little-endian bytes), then its targets, 4 bytes each.
    """
    if labels.dtype == np.float32:
        inputs = images.astype(images.dtype.newbyteorder("<")).reshape(len(images), -1)
        targets = labels.astype("<f4")
        return [hashlib.sha256(x.tobytes() + t.tobytes()).digest() for x, t in zip(inputs, targets, strict=True)]
    if images.dtype != np.uint8:
        raise DataError(f"a dataset's identity is defined on uint8 images, got {images.dtype}. Decode to uint8.")
    if len(images) != len(labels):
        raise DataError(f"{len(images)} images but {len(labels)} labels: each image needs one label.")
    encoded = labels.astype("<i8").tobytes()
    return [
        hashlib.sha256(image.tobytes() + encoded[8 * row : 8 * row + 8]).digest() for row, image in enumerate(images)
    ]


def identity_of_digests(digests: Sequence[bytes]) -> str:
    """The identity (64 hexadecimal digits) of a split whose samples have these digests, in any order."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def split_identity(images: npt.NDArray[np.uint8], labels: npt.NDArray[Any]) -> str:
    """The order-independent identity of uint8 images (N, H, W, C) and integer labels (N,).

    SHA-256 over the sorted sample digests: a changed pixel or label, a lost or repeated sample changes it.
    """
    return identity_of_digests(sample_digests(images, labels))


def order_of_digests(digests: Sequence[bytes]) -> npt.NDArray[np.int64]:
    """The permutation that sorts the digests."""
    return np.array(sorted(range(len(digests)), key=digests.__getitem__), dtype=np.int64)


def canonical_order(images: npt.NDArray[np.uint8], labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The permutation (N,) that puts the samples in digest order: the same sequence from every source."""
    return order_of_digests(sample_digests(images, labels))


@cache
def pins() -> dict[str, dict[str, str]]:
    """The identities this version of HebbBench measures on: {dataset: {split: identity}}."""
    text = resources.files(__package__).joinpath("identities.json").read_text(encoding="utf-8")
    table: dict[str, dict[str, str]] = json.loads(text)
    return table
