"""Reading a split from a folder of Hugging Face parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hebbbench.errors import DataError

from .images import Advance, decode_rows, image_bytes
from .spec import DatasetSpec
from .split import Split
from .wording import one_line

_BATCH = 1000


def parquet_files(folder: Path, split: str) -> list[Path]:
    """The files of one split, in the order of their shard numbers; empty if there are none."""
    if not folder.is_dir():
        return []
    # Not Path.glob, which takes a folder it may not read for an empty one.
    return sorted(
        path
        for path in folder.iterdir()
        if path.name == f"{split}.parquet" or (path.name.startswith(f"{split}-") and path.suffix == ".parquet")
    )


def find_parquet(spec: DatasetSpec, root: Path) -> str | None:
    """The first of the spec's subfolders of `root` that holds parquet files of any of its splits."""
    for subfolder in spec.subfolders:
        if any(parquet_files(root / subfolder, split) for split in spec.counts):
            return subfolder
    return None


def _stands_in(path: Path) -> str:
    """What a file that is not parquet seems to be, as the end of a sentence."""
    with path.open("rb") as file:
        head = file.read(64).lstrip().lower()
    if not head:
        return "it is empty"
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, saved in place of the data"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; 'git lfs pull' fetches the data"
    return "it is corrupt or truncated"


def _rows(file: Any, image_column: str, label_column: str) -> Iterator[tuple[object, object]]:
    for batch in file.iter_batches(batch_size=_BATCH, columns=[image_column, label_column]):
        cells = batch.column(image_column).to_pylist()
        labels = batch.column(label_column).to_pylist()
        yield from zip(map(image_bytes, cells), labels, strict=True)


def read_parquet(spec: DatasetSpec, folder: Path, split: str, advance: Advance) -> Split:
    """The split decoded from `folder`; raises DataError naming the file and row that is not as expected."""
    import pyarrow.parquet

    remedy = f"Copy the {split} parquet files of {spec.hub_id} from the Hugging Face hub to {folder} again."
    paths = parquet_files(folder, split)
    if not paths:
        raise DataError(f"{folder} has no {split}-*.parquet, expected the {split} split of {spec.name}. {remedy}")
    counts = []
    for path in paths:
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                columns, rows = file.schema_arrow.names, file.metadata.num_rows
        except (OSError, ValueError) as error:
            if isinstance(error, PermissionError):
                raise DataError(f"{path} cannot be read: {error.strerror}. Give read permission.") from error
            raise DataError(f"{path} is not a parquet file: {_stands_in(path)}. {remedy}") from error
        for column in (spec.image_column, spec.label_column):
            if column not in columns:
                raise DataError(f"{path} has no column '{column}', only {', '.join(columns)}. {remedy}")
        counts.append(rows)
    # The footers tell the counts, so a missing shard is found before anything is decoded.
    if sum(counts) != spec.counts[split]:
        names = ", ".join(path.name for path in paths)
        raise DataError(
            f"{folder}: the {split} split of {spec.name} has {sum(counts)} rows in {names}, "
            f"expected {spec.counts[split]}. {remedy}"
        )
    images = np.empty((spec.counts[split], *spec.shape), dtype=np.uint8)
    labels = np.empty(len(images), dtype=np.int64)
    start = 0
    for path, rows in zip(paths, counts, strict=True):
        part = slice(start, start + rows)
        start += rows
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                decode_rows(
                    _rows(file, spec.image_column, spec.label_column),
                    images[part],
                    labels[part],
                    classes=spec.classes,
                    where=str(path),
                    remedy=remedy,
                    advance=advance,
                )
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is corrupt or truncated ({one_line(error)}). {remedy}") from error
    return Split(images, labels)
