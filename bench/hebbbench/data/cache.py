"""Decoded datasets on disk: written whole or not at all, opened as memory maps.

An entry is a folder `<dataset>-<first digits of its pinned identities>` (or `<dataset>-unpinned`) holding
`{train,test}_{images,labels}.npy` in canonical order and `meta.json`. It is written in a hidden folder beside
it, flushed to disk and renamed into place, so no reader ever sees a partial one, and two processes that
prepare the same dataset each write their own and the first to finish wins.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hebbbench.errors import DataError

from .encoded import EncodedSplit, open_encoded
from .identity import pins
from .places import CACHE_VARIABLE
from .spec import DatasetSpec
from .split import Split

FORMAT = 1
_META = "meta.json"
_PARTIAL = ".partial"
_ABANDONED_S = 24 * 3600.0
_PATIENCE_S = 5.0
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, eq=False)
class Entry:
    """An opened cache entry: memory-mapped splits in canonical order, their identities and their source."""

    folder: Path
    splits: Mapping[str, Split | EncodedSplit]
    identity: dict[str, str]
    source: str


def entry_folder(cache: Path, spec: DatasetSpec) -> Path:
    """Where the entry of a dataset lies, whether or not it is there."""
    pinned = pins().get(spec.stored)
    key = "-".join(pinned[split][:8] for split in spec.splits) if pinned else "unpinned"
    return cache / f"{spec.stored}-{key}"


def open_entry(folder: Path, spec: DatasetSpec, touched: bool = False) -> Entry | None:
    """The entry at `folder`, or None if there is none or it is not whole (a truncated file, an old format).

    Checks sizes, shapes and the recorded identities; the bytes of decoded images, too, where a file has been written to
    since or copied, unless it may be `touched`. `verify` looks at every sample. Raises DataError if the folder may not
    be read.
    """
    try:
        text = (folder / _META).read_text(encoding="utf-8")
        meta = json.loads(text)
        if meta["format"] != FORMAT or meta["dataset"] != spec.stored:
            return None
        if any((folder / name).stat().st_size != size for name, size in meta["bytes"].items()):
            return None
        sealed = {} if spec.raw is not None or touched else {name: meta["sealed"][name] for name in meta["bytes"]}
        if not all(_untouched(folder / name, *seal) for name, seal in sealed.items()):
            return None
        identity = {split: str(meta["identity"][split]) for split in spec.splits}
        if pins().get(spec.stored, identity) != identity:
            return None
        splits: dict[str, Split | EncodedSplit] = {}
        for split in spec.splits:
            if spec.raw is not None:
                encoded = open_encoded(folder, split, spec)
                if encoded is None:
                    return None
                splits[split] = encoded
                continue
            images = np.load(folder / f"{split}_images.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(folder / f"{split}_labels.npy", allow_pickle=False)
            count = spec.counts[split]
            if (images.shape, images.dtype) != ((count, *spec.shape), np.dtype(spec.input_type)):
                return None
            if (labels.shape, labels.dtype) != (spec.target_shape(split), np.dtype(spec.target_type)):
                return None
            splits[split] = Split(images, labels)
        # A rebuild may have replaced the folder between two files.
        if (folder / _META).read_text(encoding="utf-8") != text:
            return None
        return Entry(folder, splits, identity, str(meta["source"]))
    except PermissionError as error:
        raise DataError(
            f"the cache {folder} cannot be read: {error.strerror}. Give read permission, "
            f"or set {CACHE_VARIABLE} or --cache to another folder."
        ) from error
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
        return None


def await_entry(folder: Path, spec: DatasetSpec) -> Entry:
    """The entry just published at `folder`.

    Another process that rebuilds it takes it away for the moment between two renames, so it is tried for
    some seconds. Raises DataError if it stays away.
    """
    end = time.monotonic() + _PATIENCE_S
    while (entry := open_entry(folder, spec)) is None:
        if time.monotonic() > end:
            raise DataError(
                f"the cache entry {folder} was written but cannot be opened again. Another program may be "
                f"changing it: set {CACHE_VARIABLE} or --cache to another folder."
            )
        time.sleep(0.01)
    return entry


@contextmanager
def writing(cache: Path) -> Iterator[None]:
    """Turn a failure to write into a DataError that names the cache folder and the ways out."""
    try:
        yield
    except OSError as error:
        fault = "is full" if error.errno in _FULL else "cannot be written"
        raise DataError(
            f"the cache folder {cache} {fault}: {error.strerror or error}. Free space or give write "
            f"permission there, or set {CACHE_VARIABLE} or --cache to another folder."
        ) from error


@contextmanager
def workspace(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` to write an entry in; removed at the end unless it was published.

    Raises DataError if it cannot be made.
    """
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}{_PARTIAL}")
    with writing(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder.parent)
        # mkdir rather than tempfile: a shared cache follows the umask.
        partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_entry(
    partial: Path, spec: DatasetSpec, splits: Mapping[str, Split], identity: Mapping[str, str], source: str
) -> None:
    """Write the files of an entry, its splits in canonical order, into `partial` and flush them to disk.

    Raises DataError if they cannot be written.
    """
    with writing(partial.parent):
        for split in spec.splits:
            for part, array in (("images", splits[split].images), ("labels", splits[split].labels)):
                with (partial / f"{split}_{part}.npy").open("wb") as file:
                    np.save(file, array, allow_pickle=False)
    seal_entry(partial, spec, identity, source)


def seal_entry(partial: Path, spec: DatasetSpec, identity: Mapping[str, str], source: str) -> None:
    """Flush the files of an entry in `partial` to disk, and write what they are beside them.

    Raises DataError if they cannot be written.
    """
    with writing(partial.parent):
        sizes, sealed = {}, {}
        for path in sorted(partial.iterdir()):
            with path.open("rb+") as file:
                _flush(file)
            sizes[path.name] = path.stat().st_size
            if spec.raw is None:
                sealed[path.name] = [path.stat().st_mtime_ns, _digest(path)]
        meta = {
            "format": FORMAT,
            "dataset": spec.stored,
            "shape": list(spec.shape) if spec.raw is None else None,
            "identity": dict(identity),
            "source": source,
            "bytes": sizes,
            "sealed": sealed,
        }
        with (partial / _META).open("w", encoding="utf-8") as text:
            json.dump(meta, text, indent=1)
            _flush(text)


def publish(partial: Path, folder: Path, spec: DatasetSpec, *, replace: bool = False) -> None:
    """Rename `partial` to `folder`. A whole entry already there is kept, unless `replace`.

    Raises DataError if it cannot be renamed.
    """
    aside = partial.with_suffix(".old" + _PARTIAL)
    with writing(folder.parent):
        _flush_folder(partial)
        while True:
            try:
                os.rename(partial, folder)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                if not replace and open_entry(folder, spec) is not None:
                    return
                # Moved aside in one step; another process may have done it first.
                with suppress(FileNotFoundError):
                    os.rename(folder, aside)
                    _remove(aside)
            else:
                _flush_folder(folder.parent)
                return


def _untouched(path: Path, written: int, digest: str) -> bool:
    """Whether a file is as it was sealed: by its time, or else by its bytes."""
    return path.stat().st_mtime_ns == written or _digest(path) == digest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system lets a folder be flushed."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_abandoned(cache: Path) -> None:
    """Remove what killed processes left behind, once it is a day old."""
    for path in cache.glob(f".*{_PARTIAL}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                _remove(path)
