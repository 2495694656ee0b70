"""The cache: whole or absent, whatever happens while it is written."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from data_fixtures import GREY, samples, write_parquet
from hebbbench import data
from hebbbench.data import cache as caching
from hebbbench.data.spec import DATASETS
from hebbbench.errors import DataError


@pytest.fixture
def where(monkeypatch, tmp_path):
    """Arguments of `load` for a parquet data root and an empty cache."""
    monkeypatch.setitem(DATASETS, GREY.name, GREY)
    write_parquet(tmp_path / "root", GREY, samples(GREY))
    return {"data_root": tmp_path / "root", "cache": tmp_path / "cache", "offline": True}


def _entry(where) -> Path:
    return caching.entry_folder(where["cache"], GREY)


def _forbid_reading(monkeypatch):
    def read(*arguments):
        raise RuntimeError("the source was read")

    monkeypatch.setattr("hebbbench.data.dataset.read_source", read)


def test_second_load_does_not_read_the_source(where, monkeypatch):
    first = data.load(GREY.name, **where)
    _forbid_reading(monkeypatch)
    second = data.load(GREY.name, **where)
    assert second.identity == first.identity
    assert np.array_equal(second.train.images, first.train.images)
    # Nor is a data root needed any more.
    assert data.load(GREY.name, cache=where["cache"], offline=True).source == first.source


@pytest.mark.parametrize("call", range(4))
def test_crash_while_writing_leaves_nothing(call, where, monkeypatch):
    real, calls = np.save, []

    def save(file, array, **options):
        if len(calls) == call:
            file.write(b"half")
            raise KeyboardInterrupt
        calls.append(1)
        real(file, array, **options)

    monkeypatch.setattr(np, "save", save)
    with pytest.raises(KeyboardInterrupt):
        data.load(GREY.name, **where)
    assert list(where["cache"].iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setitem(DATASETS, GREY.name, GREY)
    assert len(data.load(GREY.name, **where).train) == 24


def test_killed_process_leaves_no_entry_and_is_cleaned_up_after_a_day(where, monkeypatch):
    def rename(source, target):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        # A killed process runs no clean-up.
        patch.setattr(caching.shutil, "rmtree", lambda *a, **k: None)
        with pytest.raises(SystemExit):
            data.load(GREY.name, **where)
    (left,) = where["cache"].iterdir()
    assert left.name.startswith(".")
    assert caching.open_entry(_entry(where), GREY) is None
    data.load(GREY.name, **where)
    assert left.exists()
    os.utime(left, (time.time() - 2 * 86400,) * 2)
    data.prepare(GREY.name, **where, rebuild=True)
    assert [path.name for path in where["cache"].iterdir()] == [_entry(where).name]


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _edit_meta(folder: Path, **changes: object) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, **changes}))


def _relabel(folder: Path) -> None:
    labels = np.load(folder / "train_labels.npy")
    np.save(folder / "train_labels.npy", labels[::-1])


DAMAGE = {
    "labels swapped": _relabel,
    "meta without seals": lambda f: _edit_meta(f, sealed=None),
    "images truncated": lambda f: _truncate(f / "train_images.npy"),
    "labels truncated": lambda f: _truncate(f / "test_labels.npy"),
    "images empty": lambda f: os.truncate(f / "test_images.npy", 0),
    "file missing": lambda f: (f / "test_images.npy").unlink(),
    "meta missing": lambda f: (f / "meta.json").unlink(),
    "meta truncated": lambda f: _truncate(f / "meta.json"),
    "meta not an object": lambda f: (f / "meta.json").write_text("[]"),
    "meta without identities": lambda f: _edit_meta(f, identity={}),
    "meta without sizes": lambda f: _edit_meta(f, bytes=None),
    "another format": lambda f: _edit_meta(f, format=0),
    "header damaged": lambda f: (f / "train_images.npy").write_bytes(b"\0" * (f / "train_images.npy").stat().st_size),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_entry_is_rebuilt_and_never_used(damage, where):
    first = data.load(GREY.name, **where)
    expected = np.array(first.train.images)
    del first
    DAMAGE[damage](_entry(where))
    assert caching.open_entry(_entry(where), GREY) is None
    assert np.array_equal(data.load(GREY.name, **where).train.images, expected)
    assert caching.open_entry(_entry(where), GREY) is not None
    assert len(list(where["cache"].iterdir())) == 1


def test_a_copied_entry_is_whole(where, monkeypatch):
    data.load(GREY.name, **where)
    for path in _entry(where).glob("*.npy"):
        os.utime(path, (1, 1))
    assert caching.open_entry(_entry(where), GREY) is not None
    monkeypatch.setattr(caching, "_digest", lambda path: "another")
    assert caching.open_entry(_entry(where), GREY) is None
    assert caching.open_entry(_entry(where), GREY, touched=True) is not None


def test_damaged_entry_without_a_source_is_an_error(where):
    data.load(GREY.name, **where)
    _truncate(_entry(where) / "train_images.npy")
    with pytest.raises(DataError, match="not on this machine"):
        data.load(GREY.name, cache=where["cache"], offline=True)


def test_verify_finds_one_changed_byte_and_a_changed_order(where):
    data.prepare(GREY.name, **where)
    path = _entry(where) / "train_labels.npy"
    labels = np.load(path)
    np.save(path, np.where(np.arange(len(labels)) == 4, (labels + 1) % 3, labels))
    with pytest.raises(DataError, match="damaged: its train split has identity"):
        data.verify(GREY.name, cache=where["cache"])
    data.prepare(GREY.name, **where, rebuild=True)
    data.verify(GREY.name, cache=where["cache"])
    for part in ("images", "labels"):
        path = _entry(where) / f"train_{part}.npy"
        np.save(path, np.load(path)[::-1].copy())
    with pytest.raises(DataError, match="not in canonical order"):
        data.verify(GREY.name, cache=where["cache"])


def test_two_preparing_at_once_both_end_with_a_whole_entry(where):
    """The second to finish finds the first's entry and keeps it."""
    import hebbbench.data.dataset as loading

    real, results = loading.read_source, []

    def read_while_another_prepares(*arguments):
        loading.read_source = real
        results.append(data.load(GREY.name, **where))
        results.append(_entry(where).stat().st_ino)
        return real(*arguments)

    loading.read_source = read_while_another_prepares
    try:
        late = data.load(GREY.name, **where)
    finally:
        loading.read_source = real
    assert np.array_equal(late.train.images, results[0].train.images)
    assert _entry(where).stat().st_ino == results[1]
    assert len(list(where["cache"].iterdir())) == 1


def test_many_rebuilding_at_once(where):
    import threading

    failures = []

    def work():
        try:
            for _ in range(5):
                data.prepare(GREY.name, **where, rebuild=True)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    data.verify(GREY.name, cache=where["cache"])
    assert len(list(where["cache"].iterdir())) == 1


def test_full_disk(where, monkeypatch):
    def save(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", save)
    with pytest.raises(DataError, match=r"is full: No space left on device.*HEBBBENCH_CACHE or --cache") as caught:
        data.load(GREY.name, **where)
    assert str(where["cache"]) in str(caught.value)
    assert list(where["cache"].iterdir()) == []


def test_cache_path_is_a_file_fails_before_decoding(where, monkeypatch, tmp_path):
    _forbid_reading(monkeypatch)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file cannot be written.*HEBBBENCH_CACHE"):
        data.load(GREY.name, **{**where, "cache": tmp_path / "file"})


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_folders_without_permission(where):
    where["cache"].mkdir()
    where["cache"].chmod(0o500)
    with pytest.raises(DataError, match="cannot be written: Permission denied"):
        data.load(GREY.name, **where)
    where["cache"].chmod(0o700)
    data.load(GREY.name, **where)
    _entry(where).chmod(0)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        data.load(GREY.name, **where)
    _entry(where).chmod(0o700)
    folder = where["data_root"] / GREY.subfolders[0]
    folder.chmod(0)
    with pytest.raises(DataError, match=r"cannot be read\. Give read permission"):
        data.prepare(GREY.name, **where, rebuild=True)
    folder.chmod(0o700)


def test_read_only_cache_with_a_whole_entry_is_used(where, monkeypatch):
    data.load(GREY.name, **where)

    def mkdir(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert len(data.load(GREY.name, **where).train) == 24
