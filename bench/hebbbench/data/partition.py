"""The fixed validation cut of a training split."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hebbbench.errors import DataError

Indices = npt.NDArray[np.int64]


def check_partition(train: Indices, validation: Indices, size: int) -> None:
    """Raise DataError unless the two index sets are disjoint and together are 0 to size - 1."""
    uses = np.bincount(np.concatenate([train, validation]), minlength=size)
    if len(uses) != size or (uses != 1).any():
        raise DataError(
            f"the validation cut is not a partition of {size} samples: "
            f"{int((uses > 1).sum())} are used twice, {int((uses[:size] == 0).sum())} are not used. "
            "This is a fault of HebbBench; report it."
        )


def split_indices(labels: npt.NDArray[Any], validation: int) -> tuple[Indices, Indices]:
    """The (training, validation) indices, each sorted, of a cut with `validation` samples.

    Each class gives in proportion to its size (largest remainders first, then lower labels), and gives its
    first samples. On a training split in canonical order these are the ones with the lowest digests, so the
    cut depends on the data alone, not on a run's seed. Raises DataError if `validation` is negative or
    leaves no training samples.
    """
    labels = np.asarray(labels)
    size = len(labels)
    if not 0 <= validation < max(size, 1):
        raise DataError(
            f"a validation cut of {validation} from {size} training samples is impossible. "
            f"Choose 0 to {max(size - 1, 0)}."
        )
    if validation == 0:
        return np.arange(size), np.arange(0)
    classes, counts = np.unique(labels, return_counts=True)
    # Whole-number arithmetic: the cut is the same on every machine.
    takes, remainders = np.divmod(counts * validation, max(size, 1))
    short = validation - int(takes.sum())
    takes[np.argsort(-remainders, kind="stable")[:short]] += 1
    chosen = np.zeros(size, dtype=bool)
    for label, take in zip(classes, takes, strict=True):
        chosen[np.flatnonzero(labels == label)[:take]] = True
    train, held_out = np.flatnonzero(~chosen), np.flatnonzero(chosen)
    check_partition(train, held_out, size)
    return train, held_out
