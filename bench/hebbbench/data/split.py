"""A split's arrays, and the check that they are the ones the spec describes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hebbbench.errors import DataError

from .spec import DatasetSpec


@dataclass(frozen=True, eq=False)
class Split:
    """`images`: uint8 (N, H, W, C), 0 to 255. `labels`: int64 (N,), 0 to classes - 1, or -1 where there are no classes.

    Of a teacher's dataset: inputs (N, 1, 1, features), float32 or tokens in uint8, and targets float32 (N, outputs).
    """

    images: npt.NDArray[Any]
    labels: npt.NDArray[Any]

    def __len__(self) -> int:
        return len(self.labels)


def checked_split(
    spec: DatasetSpec, split: str, images: npt.NDArray[Any], labels: npt.NDArray[Any], where: str, remedy: str
) -> Split:
    """The arrays as a Split, or a DataError saying how they differ from the spec.

    `where` names the file or folder they were read from and `remedy` what to do when they are wrong.
    """
    shape = (spec.counts[split], *spec.shape)
    if images.shape != shape or images.dtype != np.uint8:
        raise DataError(
            f"{where}: the images of the {split} split of {spec.name} are {images.dtype} {images.shape}, "
            f"expected uint8 {shape}. {remedy}"
        )
    if labels.shape != shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"{where}: the labels of the {split} split of {spec.name} are {labels.dtype} {labels.shape}, "
            f"expected integers ({shape[0]},). {remedy}"
        )
    low, high = (0, spec.classes - 1) if spec.classes else (-1, -1)
    outside = np.flatnonzero((labels < low) | (labels > high))
    if len(outside):
        expected = f"{low} to {high}" if spec.classes else "-1, which is no label"
        raise DataError(
            f"{where}: row {outside[0]} of the {split} split of {spec.name} has label {labels[outside[0]]}, "
            f"expected {expected}. {remedy}"
        )
    return Split(images, labels.astype(np.int64))
