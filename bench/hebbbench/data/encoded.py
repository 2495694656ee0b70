"""Datasets too large to keep decoded: their image files, one after another in one file, decoded when they are used.

A sample's identity is that of its file's bytes and its label, so a folder of JPEG files and parquet files that hold the
same ones are one dataset. Packing reads everything once and needs the space of the dataset in the cache; from then on
any sample is one read, in any order, which neither a million small files nor parquet's row groups allow.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hebbbench.errors import DataError

from .identity import identity_of_digests, order_of_digests
from .images import Advance, image_bytes
from .parquet import parquet_files
from .spec import DatasetSpec
from .wording import one_line

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP")
ON_DISK = {"train": ("train",), "test": ("validation", "val", "test")}
"""What the splits are called in folders; the labelled validation images of ImageNet are its test split here."""

_BATCH = 100
_REPORT_EVERY = 100


@dataclass(frozen=True, eq=False)
class EncodedSplit:
    """Sample i is the image file in bytes start[i] to start[i] + length[i] of `stream`, a uint8 memory map.

    `labels`: int64 (N,). `where` begins the messages about its samples.
    """

    stream: npt.NDArray[np.uint8]
    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    where: str

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, i: int) -> bytes:
        """The file of sample i."""
        start = int(self.start[i])
        return self.stream[start : start + int(self.length[i])].tobytes()

    def image(self, i: int) -> Image:
        """Sample i decoded, in RGB.

        Raises:
            DataError: its file is damaged.
        """
        from PIL import Image

        try:
            with Image.open(io.BytesIO(self.read(i)), formats=FORMATS) as file:
                return file.convert("RGB")
        except Exception as error:  # Pillow raises half a dozen kinds on damaged files; all mean this.
            raise DataError(
                f"{self.where}: image {i}, of class {self.labels[i]}, cannot be decoded ({one_line(error)}). Replace "
                "the file at its source, delete the dataset's folder in the cache, and prepare it anew."
            ) from error

    def digests(self) -> list[bytes]:
        """SHA-256 of each sample: its file's bytes, then its label as 8 little-endian bytes."""
        return [_digest(self.read(i), int(label)) for i, label in enumerate(self.labels)]


def open_encoded(folder: Path, split: str, spec: DatasetSpec) -> EncodedSplit | None:
    """The split of a cache entry, memory-mapped; None if it is not as the spec says."""
    index = np.load(folder / f"{split}_index.npy", allow_pickle=False)
    if (index.shape, index.dtype) != ((3, spec.counts[split]), np.int64):
        return None
    stream = np.memmap(folder / f"{split}_files.bin", dtype=np.uint8, mode="r")
    start, length, labels = index
    return EncodedSplit(stream, start, length, labels, f"{split} split of {spec.stored}")


def find_encoded(spec: DatasetSpec, root: Path) -> tuple[str, Path] | None:
    """(kind, folder) of the first place below `root` that holds the dataset: parquet files, or folders of images.

    Raises:
        DataError: a folder may not be read.
    """
    try:
        for subfolder in spec.subfolders:
            if any(_parquet(root / subfolder, split) for split in spec.splits):
                return "parquet", root / subfolder
        for subfolder in spec.folders:
            if all(_classes_folder(root / subfolder, split) for split in spec.splits):
                return "folder", root / subfolder
    except PermissionError as error:
        raise DataError(f"{error.filename} below the data root {root} cannot be read. Give read permission.") from error
    return None


def by_hand(spec: DatasetSpec) -> str:
    """The remedy: what to put where."""
    return (
        f"Below the data root put {spec.subfolders[0]}/train-*.parquet and validation-*.parquet "
        f"(from {spec.hub_id} on the Hugging Face hub), or {spec.folders[0]}/train and {spec.folders[0]}/val with one "
        "folder a class, named so that their order is that of the labels."
    )


def pack(spec: DatasetSpec, kind: str, folder: Path, partial: Path, advance: Advance) -> dict[str, str]:
    """Write both splits of a source as an entry's files into `partial`, in canonical order; returns their identities.

    Raises:
        DataError: a file is no image, a label is out of range, or the counts are not the spec's.
    """
    identity = {}
    for split in spec.splits:
        rows = _parquet_rows(spec, folder, split) if kind == "parquet" else _folder_rows(spec, folder, split)
        digests: list[bytes] = []
        lengths: list[int] = []
        labels: list[int] = []
        with (partial / f"{split}_files.bin").open("wb") as file:
            for where, data, label in rows:
                _check(spec, where, data, label)
                file.write(data)
                digests.append(_digest(data, label))
                lengths.append(len(data))
                labels.append(label)
                if len(labels) % _REPORT_EVERY == 0:
                    advance(_REPORT_EVERY)
        if len(labels) != spec.counts[split]:
            raise DataError(
                f"{folder}: the {split} split of {spec.stored} has {len(labels)} images, expected "
                f"{spec.counts[split]}. Copy it again."
            )
        length = np.array(lengths, dtype=np.int64)
        index = np.stack([np.cumsum(length) - length, length, np.array(labels, dtype=np.int64)])
        np.save(partial / f"{split}_index.npy", index[:, order_of_digests(digests)], allow_pickle=False)
        identity[split] = identity_of_digests(digests)
    return identity


def _digest(data: bytes, label: int) -> bytes:
    return hashlib.sha256(data + label.to_bytes(8, "little")).digest()


def _check(spec: DatasetSpec, where: str, data: object, label: object) -> None:
    """Refuse what is no image at all. Damage within an image shows when it is decoded."""
    from PIL import Image

    fault = None
    if not isinstance(data, bytes):
        fault = f"expected image bytes, found {type(data).__name__}"
    elif not isinstance(label, int) or not 0 <= label < spec.classes:
        fault = f"label {label!r}, expected an integer 0 to {spec.classes - 1}"
    else:
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS):
                pass
        except Exception as error:  # Pillow raises half a dozen kinds on foreign bytes; all mean this.
            fault = f"it is no {', '.join(FORMATS)} image ({one_line(error)})"
    if fault is not None:
        raise DataError(f"{where}: {fault}. Copy it again from {spec.hub_id}.")


def _parquet(folder: Path, split: str) -> list[Path]:
    """A split's parquet files: `train-….parquet` in the folder, or any in its folder `train`."""
    for name in ON_DISK[split]:
        inner = folder / name
        found = parquet_files(folder, name) or (sorted(inner.glob("*.parquet")) if inner.is_dir() else [])
        if found:
            return found
    return []


def _parquet_rows(spec: DatasetSpec, folder: Path, split: str) -> Iterator[tuple[str, bytes, int]]:
    import pyarrow.parquet

    for path in _parquet(folder, split):
        row = 0
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                columns = [spec.image_column, spec.label_column]
                for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
                    cells, labels = (batch.column(column).to_pylist() for column in columns)
                    for cell, label in zip(cells, labels, strict=True):
                        yield f"{path}, row {row}", image_bytes(cell), label  # type: ignore[misc]
                        row += 1
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path} is corrupt or has other columns ({one_line(error)}). Copy it again.") from error


def _classes_folder(folder: Path, split: str) -> Path | None:
    return next((folder / name for name in ON_DISK[split] if (folder / name).is_dir()), None)


def _folder_rows(spec: DatasetSpec, folder: Path, split: str) -> Iterator[tuple[str, bytes, int]]:
    inner = _classes_folder(folder, split)
    classes = sorted(path for path in inner.iterdir() if path.is_dir()) if inner is not None else []
    if len(classes) != spec.classes:
        raise DataError(f"{inner} has {len(classes)} folders, expected one for each of {spec.classes} classes.")
    for label, kind in enumerate(classes):
        for path in sorted(path for path in kind.iterdir() if not path.name.startswith(".")):
            try:
                data = path.read_bytes()
            except OSError as error:
                raise DataError(f"{path}, among the images of a class, cannot be read: {error.strerror}.") from error
            yield str(path), data, label
