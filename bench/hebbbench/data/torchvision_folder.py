"""Reading a split from the folder layout that torchvision's dataset classes leave behind."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from hebbbench.errors import DataError

from .spec import DatasetSpec
from .split import Split, checked_split
from .wording import one_line


def find_torchvision(spec: DatasetSpec, root: Path) -> str | None:
    """The folder below `root` ("." or the dataset's name) that is a torchvision root of this dataset."""
    if spec.torchvision_folder is None:
        return None
    for subfolder in (".", spec.name):
        if (root / subfolder / spec.torchvision_folder).is_dir():
            return subfolder
    return None


def read_torchvision(spec: DatasetSpec, root: Path, split: str) -> Split:
    """The split below torchvision root `root`, without downloading.

    Raises DataError if torchvision is not installed, or if a file is missing, corrupt or of the wrong size.
    """
    folder = root / str(spec.torchvision_folder)
    try:
        from torchvision import datasets as torchvision_datasets
    except ImportError as error:
        raise DataError(
            f"{folder} holds {spec.name} in torchvision's layout, but torchvision is not installed. "
            "Run: pip install 'hebbbench[data]'"
        ) from error
    remedy = f"Delete that folder and run: torchvision.datasets.{spec.torchvision_class}({str(root)!r}, download=True)"
    build = getattr(torchvision_datasets, str(spec.torchvision_class))
    try:
        with warnings.catch_warnings():
            # The published CIFAR pickles hold an old spelling of a NumPy dtype.
            warnings.filterwarnings("ignore", message=r"dtype\(\): align should be passed")
            if spec.torchvision_class == "STL10":
                loaded = build(root, split=split if spec.classes else "unlabeled", download=False)
                images, labels = loaded.data.transpose(0, 2, 3, 1), np.asarray(loaded.labels)
            else:
                loaded = build(root, train=split == "train", download=False)
                images, labels = np.asarray(loaded.data), np.asarray(loaded.targets)
    except Exception as error:  # torchvision asserts, unpickles and reshapes; each failure means bad files.
        raise DataError(
            f"{folder}: torchvision cannot read the {split} split of {spec.name} "
            f"({type(error).__name__}: {one_line(error)}). {remedy}"
        ) from error
    if images.ndim == 3:
        images = images[..., None]
    return checked_split(spec, split, np.ascontiguousarray(images), labels, str(folder), remedy)
