"""Datasets: found, decoded once, identified by their content, and cut into training and validation.

The test split of a `Dataset` is opened once. `hebbbench.data.batches`, which needs PyTorch, feeds the arrays
to a device.
"""

from .dataset import Dataset, Progress, load
from .encoded import EncodedSplit
from .identity import canonical_order, pins, split_identity
from .manage import DatasetStatus, prepare, status, verify
from .partition import split_indices
from .spec import DATASETS, DatasetSpec, dataset_names, dataset_spec
from .split import Split

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetSpec",
    "DatasetStatus",
    "EncodedSplit",
    "Progress",
    "Split",
    "canonical_order",
    "dataset_names",
    "dataset_spec",
    "load",
    "pins",
    "prepare",
    "split_identity",
    "split_indices",
    "status",
    "verify",
]
