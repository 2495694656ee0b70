"""Identity, the validation cut, loading and the sealed test split."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_fixtures import COLOUR, GREY, samples, shuffled, write_parquet
from hebbbench import data
from hebbbench.data import identity, places
from hebbbench.data.partition import check_partition
from hebbbench.data.spec import DATASETS
from hebbbench.errors import DataError, UnknownNameError


@pytest.fixture(autouse=True)
def _tiny_datasets(monkeypatch, tmp_path):
    monkeypatch.setitem(DATASETS, GREY.name, GREY)
    monkeypatch.setitem(DATASETS, COLOUR.name, COLOUR)


@pytest.fixture
def grey(tmp_path):
    """A parquet data root and the samples in it."""
    splits = samples(GREY)
    write_parquet(tmp_path / "root", GREY, splits)
    return splits


def test_identity_does_not_depend_on_order():
    splits = samples(COLOUR)
    other = shuffled(splits)
    for split in splits:
        a, b = splits[split], other[split]
        assert not np.array_equal(a.labels, b.labels)
        assert data.split_identity(a.images, a.labels) == data.split_identity(b.images, b.labels)
        first, second = data.canonical_order(a.images, a.labels), data.canonical_order(b.images, b.labels)
        assert np.array_equal(a.images[first], b.images[second])
        assert np.array_equal(a.labels[first], b.labels[second])


def test_identity_follows_its_definition():
    train = samples(GREY)["train"]
    digests = sorted(
        hashlib.sha256(image.tobytes() + int(label).to_bytes(8, "little")).digest()
        for image, label in zip(train.images, train.labels, strict=True)
    )
    expected = hashlib.sha256(b"".join(digests)).hexdigest()
    assert data.split_identity(train.images, train.labels) == expected
    # The memory layout and the labels' type are not part of a sample.
    planes = np.ascontiguousarray(train.images.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    assert data.split_identity(planes, train.labels.astype(np.uint8)) == expected


def test_identity_changes_with_one_pixel_one_label_and_one_repeat():
    train = samples(GREY)["train"]
    seen = {data.split_identity(train.images, train.labels)}
    images = train.images.copy()
    images[3, 2, 1, 0] ^= 1
    seen.add(data.split_identity(images, train.labels))
    labels = train.labels.copy()
    labels[5] = (labels[5] + 1) % 3
    seen.add(data.split_identity(train.images, labels))
    repeat = np.r_[0, 0 : len(labels)]
    seen.add(data.split_identity(train.images[repeat], train.labels[repeat]))
    assert len(seen) == 4


def test_identity_rejects_other_arrays():
    with pytest.raises(DataError, match="float32"):
        data.split_identity(np.zeros((2, 2, 2, 1), np.float32), np.zeros(2, np.int64))
    with pytest.raises(DataError, match="2 images but 3 labels"):
        data.split_identity(np.zeros((2, 2, 2, 1), np.uint8), np.zeros(3, np.int64))


@pytest.mark.parametrize("validation", [0, 1, 7, 40, 99])
def test_validation_cut_is_stratified_and_a_partition(validation):
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [50, 30, 20]))
    train, held_out = data.split_indices(labels, validation)
    assert len(held_out) == validation
    assert np.array_equal(np.sort(np.r_[train, held_out]), np.arange(100))
    share = np.bincount(labels[held_out], minlength=3) - validation * np.array([0.5, 0.3, 0.2])
    assert (np.abs(share) < 1).all()
    again = data.split_indices(labels, validation)
    assert np.array_equal(train, again[0])
    assert np.array_equal(held_out, again[1])


def test_validation_cut_is_even_for_even_classes_and_takes_the_first():
    labels = np.tile(np.arange(10), 100)
    _, held_out = data.split_indices(labels, 200)
    assert np.array_equal(held_out, np.arange(200))


@pytest.mark.parametrize("validation", [-1, 10, 11])
def test_validation_cut_must_leave_training_samples(validation):
    with pytest.raises(DataError, match="Choose 0 to 9"):
        data.split_indices(np.zeros(10, np.int64), validation)


def test_partition_check_raises():
    with pytest.raises(DataError, match="1 are used twice, 1 are not used"):
        check_partition(np.array([0, 1]), np.array([1, 2]), 4)
    with pytest.raises(DataError, match="not a partition"):
        check_partition(np.array([0, 1]), np.array([2]), 2)


def test_load_gives_canonical_read_only_arrays_and_counts_progress(tmp_path, grey):
    calls = []
    dataset = data.load(
        GREY.name,
        data_root=tmp_path / "root",
        cache=tmp_path / "cache",
        offline=True,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[-1] == (33, 33)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    order = data.canonical_order(grey["train"].images, grey["train"].labels)
    assert np.array_equal(dataset.train.images, grey["train"].images[order])
    assert np.array_equal(dataset.train.labels, grey["train"].labels[order])
    assert (dataset.classes, dataset.shape, dataset.pinned) == (3, (7, 5, 1), False)
    assert dataset.source == "parquet tiny-grey/main"
    assert isinstance(dataset.train.images, np.memmap)
    assert not dataset.train.images.flags.writeable


def test_test_split_is_opened_once(tmp_path, grey):
    dataset = data.load(GREY.name, data_root=tmp_path / "root", cache=tmp_path / "cache", offline=True)
    test = dataset.open_test()
    assert data.split_identity(test.images, test.labels) == dataset.identity["test"]
    with pytest.raises(DataError, match="read once"):
        dataset.open_test()


def test_pin_mismatch_is_found_before_anything_is_cached(tmp_path, grey, monkeypatch):
    right = {split: data.split_identity(s.images, s.labels) for split, s in grey.items()}
    where = {"data_root": tmp_path / "root", "cache": tmp_path / "cache", "offline": True}
    monkeypatch.setitem(identity.pins(), GREY.name, {**right, "train": "0" * 64})
    with pytest.raises(DataError, match=f"train split has identity {right['train']}, expected 0000"):
        data.load(GREY.name, **where)
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.setitem(identity.pins(), GREY.name, right)
    assert data.load(GREY.name, **where).pinned


def test_embedded_digits_are_pinned_and_stratified(tmp_path):
    dataset = data.load("digits", cache=tmp_path, offline=True)
    test = dataset.open_test()
    assert dataset.pinned
    assert dataset.identity == identity.pins()["digits"] == data.verify("digits", cache=tmp_path)
    assert dataset.train.images.max() == 255
    both = np.bincount(dataset.train.labels) + np.bincount(test.labels)
    assert both.sum() == 1797
    assert np.array_equal(np.bincount(test.labels), both // 5)
    train_images = {image.tobytes() for image in dataset.train.images}
    assert not train_images & {image.tobytes() for image in test.images}


def test_unknown_dataset():
    with pytest.raises(UnknownNameError, match="Did you mean 'mnist'"):
        data.load("minst")


def test_status_prepare_and_verify(tmp_path, grey):
    where = {"data_root": tmp_path / "root", "cache": tmp_path / "cache"}
    rows = {row.name: row for row in data.status(**where)}
    assert set(rows) == set(data.dataset_names())
    assert rows["digits"].embedded
    assert rows[GREY.name].cached is None
    assert rows[GREY.name].found == str(tmp_path / "root/tiny-grey/main")
    assert "Unpinned" in rows["cifar100"].advice
    assert "Not on this machine" in rows["mnist"].advice
    with pytest.raises(DataError, match="data prepare tiny-grey"):
        data.verify(GREY.name, cache=tmp_path / "cache")
    row = data.prepare(GREY.name, **where, offline=True)
    assert row.cached is not None
    assert data.verify(GREY.name, cache=tmp_path / "cache") == row.identity


def test_status_reports_a_bad_data_root(tmp_path):
    rows = {row.name: row for row in data.status(tmp_path / "nowhere", tmp_path / "cache")}
    assert "is not a folder" in rows["mnist"].advice
    assert "is not a folder" not in rows["digits"].advice


def test_places(monkeypatch, tmp_path):
    for name in ("HEBBBENCH_CACHE", "HEBBBENCH_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert places.resolve_data_root(None) is None
    assert places.resolve_cache(None) == tmp_path / ".cache/hebbbench"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert places.resolve_cache(None) == tmp_path / ".cache/hebbbench"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert places.resolve_cache(None) == tmp_path / "xdg/hebbbench"
    monkeypatch.setenv("HEBBBENCH_CACHE", str(tmp_path / "c"))
    monkeypatch.setenv("HEBBBENCH_DATA", "~/d")
    assert places.resolve_cache(None) == tmp_path / "c"
    assert places.resolve_data_root(None) == tmp_path / "d"
    assert places.resolve_cache(tmp_path) == tmp_path


def test_import_is_light():
    heavy = "torch", "torchvision", "datasets", "sklearn", "pyarrow", "PIL"
    code = f"import sys, hebbbench.data; print([n for n in {heavy!r} if n in sys.modules])"
    package = Path(data.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(package)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]", done.stderr


def _real(name: str, tmp_path_factory) -> data.Dataset:
    root = os.environ.get("HEBBBENCH_DATA")
    if not root:
        pytest.skip(f"HEBBBENCH_DATA is not set, so {name} is not at hand")
    return data.load(name, data_root=Path(root), cache=tmp_path_factory.mktemp("cache"), offline=True)


@pytest.mark.real_data
def test_real_mnist_is_the_published_file():
    root = os.environ.get("HEBBBENCH_DATA")
    if not root:
        pytest.skip("HEBBBENCH_DATA is not set, so MNIST is not at hand")
    from hebbbench.data.sources import find_source, read_source

    spec = data.dataset_spec("mnist")
    train = read_source(spec, find_source(spec, Path(root), offline=True), lambda count: None)["train"]
    header = b"".join(number.to_bytes(4, "big") for number in (0x803, 60000, 28, 28))
    # The MD5 of the published training images, uncompressed; its order is the parquet file's.
    digest = hashlib.md5(header + train.images.tobytes()).hexdigest()
    assert digest == "6bbc9ace898e44ae57da46a324031adb"
    assert data.split_identity(train.images, train.labels) == data.pins()["mnist"]["train"]


@pytest.mark.real_data
def test_real_cifar10_has_the_known_channel_means(tmp_path_factory):
    dataset = _real("cifar10", tmp_path_factory)
    means = dataset.train.images.mean(axis=(0, 1, 2), dtype=np.float64) / 255
    assert np.allclose(means, [0.49139968, 0.48215841, 0.44653091], rtol=0, atol=5e-9)
    assert dataset.pinned
    assert np.array_equal(np.bincount(dataset.open_test().labels), [1000] * 10)
