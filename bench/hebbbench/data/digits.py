"""The digits that come with scikit-learn: 1797 images of 8x8, for a run that needs no download."""

from __future__ import annotations

import numpy as np

from .identity import canonical_order
from .spec import DatasetSpec
from .split import Split, checked_split

_TEST_PART = 5
_REMEDY = "Reinstall scikit-learn."


def read_digits(spec: DatasetSpec) -> dict[str, Split]:
    """Both splits; scikit-learn's values 0 to 16 become 0 to 255.

    The set has no official split, so this one is fixed by the data alone: of each class, the first fifth
    (rounded down) in digest order is the test split.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = (bunch.images.astype(np.int64) * 255 // 16).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int64)
    order = canonical_order(images, labels)
    images, labels = images[order], labels[order]
    test = np.zeros(len(labels), dtype=bool)
    for label in range(spec.classes):
        members = np.flatnonzero(labels == label)
        test[members[: len(members) // _TEST_PART]] = True
    where = "scikit-learn's digits"
    return {
        "train": checked_split(spec, "train", images[~test], labels[~test], where, _REMEDY),
        "test": checked_split(spec, "test", images[test], labels[test], where, _REMEDY),
    }
