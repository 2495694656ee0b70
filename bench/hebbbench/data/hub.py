"""Downloading a split from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from hebbbench.errors import DataError

from .images import Advance, decode_rows, image_bytes
from .places import DATA_VARIABLE
from .spec import DatasetSpec
from .split import Split
from .wording import one_line

_BATCH = 1000


def by_hand(spec: DatasetSpec) -> str:
    """The remedy when the hub cannot be used: what to put where."""
    origin = f" (from {spec.hub_id} on the hub)" if spec.hub_id is not None else " of PNG images"
    ways = [f"{spec.subfolders[0]}/train-*.parquet and test-*.parquet{origin}"] if spec.subfolders else []
    if spec.torchvision_folder is not None:
        ways.append(f"torchvision's {spec.torchvision_folder}")
    return f"Set {DATA_VARIABLE} or --data-root to a folder that has {', or '.join(ways)}."


def _rows(table: Any, image_column: str, label_column: str) -> Iterator[tuple[object, object]]:
    for batch in table.iter(batch_size=_BATCH):
        yield from zip(map(image_bytes, batch[image_column]), batch[label_column], strict=True)


def read_hub(spec: DatasetSpec, split: str, advance: Advance) -> Split:
    """The split, downloaded or from Hugging Face's own cache; HF_HUB_OFFLINE keeps it to the latter.

    Raises DataError if `datasets` is not installed, if the hub cannot be reached, or if what it serves is
    not as the spec says.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"downloading {spec.name} needs the package 'datasets', which is not installed. "
            f"Run: pip install 'hebbbench[data]'. {by_hand(spec)}"
        ) from error
    where = f"{spec.hub_id} on the Hugging Face hub, {split} split"
    try:
        table = datasets.load_dataset(spec.hub_id, split=split)
        for column in (spec.image_column, spec.label_column):
            if column not in table.column_names:
                found = ", ".join(table.column_names)
                raise DataError(f"{where}: there is no column '{column}', only {found}. {by_hand(spec)}")
        # The stored bytes, so that the pixels are decoded the same way whatever the source.
        table = table.cast_column(spec.image_column, datasets.Image(decode=False))
        images = np.empty((spec.counts[split], *spec.shape), dtype=np.uint8)
        labels = np.empty(len(images), dtype=np.int64)
        decode_rows(
            _rows(table, spec.image_column, spec.label_column),
            images,
            labels,
            classes=spec.classes,
            where=where,
            remedy=by_hand(spec),
            advance=advance,
        )
    except DataError:
        raise
    except Exception as error:  # Network, proxy, authentication and file errors come as many types.
        raise DataError(
            f"{where}: it cannot be read ({type(error).__name__}: {one_line(error)}). "
            f"Check the network connection. {by_hand(spec)}"
        ) from error
    return Split(images, labels)
