"""Every source gives the same data; every kind of bad file gives one clear error."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_fixtures import (
    COLOUR,
    GREY,
    encoded,
    hub_table,
    samples,
    shuffled,
    write_cifar,
    write_idx,
    write_parquet,
    write_stl,
    write_table,
)
from hebbbench import data
from hebbbench.data.sources import find_source, read_source
from hebbbench.data.spec import DATASETS
from hebbbench.errors import DataError


@pytest.fixture(autouse=True)
def _tiny_datasets(monkeypatch):
    monkeypatch.setitem(DATASETS, GREY.name, GREY)
    monkeypatch.setitem(DATASETS, COLOUR.name, COLOUR)


def _serve(monkeypatch, spec, splits):
    """Make datasets.load_dataset serve these splits, and record what it is asked for."""
    import datasets

    asked = []

    def load_dataset(path, split):
        asked.append((path, split))
        return hub_table(spec, splits[split])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


@pytest.mark.parametrize("spec", [GREY, COLOUR], ids=lambda spec: spec.name)
def test_every_source_gives_the_same_dataset(spec, tmp_path, monkeypatch):
    splits = samples(spec)
    write_parquet(tmp_path / "png", spec, splits)
    if spec is COLOUR:
        write_parquet(tmp_path / "webp", spec, shuffled(splits, 5), kind="WEBP")
        write_cifar(tmp_path / "torchvision", shuffled(splits), monkeypatch)
    else:
        write_idx(tmp_path / "torchvision", shuffled(splits))
    asked = _serve(monkeypatch, spec, shuffled(splits, 2))
    roots = {folder.name: folder for folder in tmp_path.iterdir()}
    loaded = {
        name: data.load(spec.name, data_root=root, cache=tmp_path / f"cache-{name}", offline=True)
        for name, root in roots.items()
    }
    assert asked == []
    loaded["hub"] = data.load(spec.name, cache=tmp_path / "cache-hub")
    assert asked == [(spec.hub_id, "train"), (spec.hub_id, "test")]
    assert {d.source.split()[0] for d in loaded.values()} == {"parquet", "torchvision", "hub"}
    first = loaded.pop("png")
    test = first.open_test()
    for other in loaded.values():
        assert other.identity == first.identity
        assert np.array_equal(other.train.images, first.train.images)
        assert np.array_equal(other.train.labels, first.train.labels)
        other_test = other.open_test()
        assert np.array_equal(other_test.images, test.images)
        assert np.array_equal(other_test.labels, test.labels)


def test_data_root_comes_from_the_environment(tmp_path, monkeypatch):
    write_parquet(tmp_path / "root", GREY, samples(GREY))
    monkeypatch.setenv("HEBBBENCH_DATA", str(tmp_path / "root"))
    monkeypatch.setenv("HEBBBENCH_CACHE", str(tmp_path / "cache"))
    assert data.load(GREY.name, offline=True).source.startswith("parquet")
    assert (tmp_path / "cache").is_dir()


def _fails(spec, root, message):
    """Reading the data root raises one DataError; returns its text."""
    with pytest.raises(DataError, match=message) as caught:
        read_source(spec, find_source(spec, root, offline=True), lambda count: None)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_missing_offline_says_what_to_put_where(tmp_path):
    text = _fails(GREY, tmp_path, "does not have it")
    assert "HEBBBENCH_DATA" in text
    assert "tiny-grey/main/train-*.parquet" in text
    assert "MNIST/raw" in text
    assert "no data root is set" in _fails(GREY, None, "offline")


def test_data_root_that_is_not_a_folder(tmp_path):
    _fails(GREY, tmp_path / "nowhere", "nowhere is not a folder")


FAULTS = {
    b"<!DOCTYPE html><html><body>Sign in</body></html>": "train-00001-of-00002.parquet .* web page",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n": "Git LFS pointer",
    b"": "it is empty",
    b"PAR1 but nothing after": "corrupt or truncated",
}


@pytest.mark.parametrize("content", FAULTS, ids=["html", "lfs", "empty", "garbage"])
def test_parquet_file_that_is_something_else(content, tmp_path):
    folder = write_parquet(tmp_path, GREY, samples(GREY))
    (folder / "train-00001-of-00002.parquet").write_bytes(content)
    _fails(GREY, tmp_path, FAULTS[content])


def test_parquet_truncated_or_with_damaged_pages(tmp_path):
    folder = write_parquet(tmp_path, GREY, samples(GREY))
    path = folder / "train-00000-of-00002.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    _fails(GREY, tmp_path, "train-00000-of-00002.parquet .* corrupt or truncated")
    # The footer is whole, the data before it are not.
    path.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    _fails(GREY, tmp_path, "train-00000-of-00002.parquet")


def test_parquet_shard_or_split_missing(tmp_path):
    folder = write_parquet(tmp_path, GREY, samples(GREY))
    (folder / "train-00001-of-00002.parquet").unlink()
    _fails(GREY, tmp_path, "12 rows in train-00000-of-00002.parquet, expected 24")
    (folder / "train-00000-of-00002.parquet").unlink()
    _fails(GREY, tmp_path, "has no train-\\*.parquet")


def test_parquet_wrong_columns(tmp_path):
    folder = write_parquet(tmp_path, GREY, samples(GREY))
    pq.write_table(pa.table({"picture": [b""], "label": [0]}), folder / "train-00000-of-00002.parquet")
    _fails(GREY, tmp_path, "no column 'image', only picture, label")


def _cell(image, fault):
    """An image column's cell with a fault."""
    whole = encoded(image)
    return {
        "truncated": whole[: len(whole) // 2],
        "bits": whole[:45] + bytes(20) + whole[65:],
        "jpeg": encoded(image, "JPEG"),
        "lossy": encoded(image.repeat(3, axis=2), "WEBP", lossless=False),
        "missing": None,
        "size": encoded(image[1:]),
        "mode": encoded(image.repeat(3, axis=2)),
        "html": b"<html></html>",
    }[fault]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("truncated", "cannot be decoded"),
        ("bits", "cannot be decoded"),
        ("jpeg", "not PNG or lossless WebP"),
        ("lossy", "not PNG or lossless WebP"),
        ("missing", "found NoneType"),
        ("size", "6x5 L, expected 7x5 L"),
        ("mode", "7x5 RGB, expected 7x5 L"),
        ("html", "not PNG or lossless WebP"),
    ],
)
def test_bad_image_names_file_and_row(fault, message, tmp_path):
    splits = samples(GREY)
    folder = write_parquet(tmp_path, GREY, splits)
    cells = [encoded(image) for image in splits["train"].images[:12]]
    cells[7] = _cell(splits["train"].images[7], fault)
    write_table(folder / "train-00000-of-00002.parquet", GREY, cells, splits["train"].labels[:12].tolist())
    _fails(GREY, tmp_path, f"train-00000-of-00002.parquet, row 7: .*{message}")


@pytest.mark.parametrize("label", [3, -1, None])
def test_bad_label_names_file_and_row(label, tmp_path):
    splits = samples(GREY)
    folder = write_parquet(tmp_path, GREY, splits)
    labels = splits["test"].labels[:4].tolist()
    labels[2] = label
    cells = [encoded(image) for image in splits["test"].images[:4]]
    write_table(folder / "test-00000-of-00002.parquet", GREY, cells, labels)
    _fails(GREY, tmp_path, f"test-00000-of-00002.parquet, row 2: label {label}, expected an integer 0 to 2")


@pytest.mark.parametrize("labels", [[0.0] * 4, ["0"] * 4, [True] * 4], ids=["float", "text", "bool"])
def test_labels_of_another_type(labels, tmp_path):
    splits = samples(GREY)
    folder = write_parquet(tmp_path, GREY, splits)
    cells = [encoded(image) for image in splits["test"].images[:4]]
    write_table(folder / "test-00000-of-00002.parquet", GREY, cells, labels)
    _fails(GREY, tmp_path, "row 0: label .* expected an integer")


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", None], ids=["empty", "html", "truncated"])
def test_bad_idx_file(content, tmp_path):
    folder = write_idx(tmp_path, samples(GREY))
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-10] if content is None else content)
    text = _fails(GREY, tmp_path, "torchvision cannot read the train split")
    assert str(folder) in text
    assert "download=True" in text


def test_idx_of_wrong_count_shape_and_label(tmp_path):
    splits = samples(GREY)
    folder = write_idx(tmp_path / "count", {**splits, "train": splits["test"]})
    assert str(folder) in _fails(GREY, tmp_path / "count", r"uint8 \(9, 7, 5, 1\), expected uint8 \(24, 7, 5, 1\)")
    splits["test"].labels[3] = 9
    write_idx(tmp_path / "label", splits)
    _fails(GREY, tmp_path / "label", "row 3 of the test split .* has label 9, expected 0 to 2")


def test_idx_file_missing(tmp_path):
    folder = write_idx(tmp_path, samples(GREY))
    (folder / "t10k-labels-idx1-ubyte").unlink()
    _fails(GREY, tmp_path, "torchvision cannot read .*not found")


def test_bad_cifar_pickle(tmp_path, monkeypatch):
    folder = write_cifar(tmp_path, samples(COLOUR), monkeypatch)
    whole = (folder / "data_batch_1").read_bytes()
    (folder / "data_batch_1").write_bytes(whole[:1000])
    _fails(COLOUR, tmp_path, "torchvision cannot read the train split .*UnpicklingError")


def test_cifar_files_are_checked_before_they_are_unpickled(tmp_path, monkeypatch):
    write_cifar(tmp_path, samples(COLOUR), monkeypatch)
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", "0" * 32]])
    _fails(COLOUR, tmp_path, "corrupted")


def test_torchvision_not_installed(tmp_path, monkeypatch):
    write_idx(tmp_path, samples(GREY))
    monkeypatch.setitem(sys.modules, "torchvision", None)
    _fails(GREY, tmp_path, r"torchvision is not installed. Run: pip install 'hebbbench\[data\]'")


def test_unreachable_hub_becomes_one_error(tmp_path, monkeypatch):
    import datasets

    def unreachable(path, split):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError, match=r"Couldn't reach the Hub.*HEBBBENCH_DATA or --data-root"):
        data.load(GREY.name, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_hub_of_wrong_count_and_columns(tmp_path, monkeypatch):
    splits = samples(GREY)
    _serve(monkeypatch, GREY, {"train": splits["test"]})
    with pytest.raises(DataError, match="hub, train split: 9 rows, expected 24"):
        data.load(GREY.name, cache=tmp_path)
    _serve(
        monkeypatch,
        GREY,
        {
            "train": data.Split(
                *(np.tile(a, (2,) + (1,) * (a.ndim - 1)) for a in (splits["train"].images, splits["train"].labels))
            )
        },
    )
    with pytest.raises(DataError, match="more than the expected 24 rows"):
        data.load(GREY.name, cache=tmp_path)
    _serve(monkeypatch, COLOUR, samples(COLOUR))
    with pytest.raises(DataError, match="no column 'image', only img, fine_label"):
        data.load(GREY.name, cache=tmp_path)


def test_datasets_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"needs the package 'datasets'.*hebbbench\[data\]"):
        data.load(GREY.name, cache=tmp_path)


def test_a_dataset_that_no_hub_has_is_asked_for_by_folder(tmp_path):
    with pytest.raises(DataError, match=r"no copy on the hub is known\. Set HEBBBENCH_DATA .* stl10_binary\."):
        data.load("stl10", data_root=tmp_path, cache=tmp_path / "cache")


def test_stl10_is_read_from_torchvisions_folder(tmp_path, monkeypatch):
    spec = replace(DATASETS["stl10"], counts={"train": 20, "test": 10})
    monkeypatch.setitem(DATASETS, "stl10", spec)
    splits = samples(spec)
    write_stl(tmp_path, splits, monkeypatch)
    loaded = data.load("stl10", data_root=tmp_path, cache=tmp_path / "cache")
    assert loaded.identity["train"] == data.split_identity(splits["train"].images, splits["train"].labels)
    assert len(loaded.open_test()) == 10


def test_images_without_labels_are_read_from_torchvisions_folder(tmp_path, monkeypatch):
    spec = replace(DATASETS["stl10-unlabelled"], counts={"train": 12})
    monkeypatch.setitem(DATASETS, "stl10-unlabelled", spec)
    splits = samples(replace(DATASETS["stl10"], counts={"train": 20, "test": 10}))
    bare = np.random.default_rng(3).integers(0, 256, (12, *spec.shape), dtype=np.uint8)
    write_stl(tmp_path, splits, monkeypatch, bare)
    loaded = data.load("stl10-unlabelled", data_root=tmp_path, cache=tmp_path / "cache")
    assert list(loaded.identity) == ["train"]
    assert loaded.identity["train"] == data.split_identity(bare, np.full(12, -1))
    assert set(loaded.train.labels.tolist()) == {-1}
    assert data.verify("stl10-unlabelled", cache=tmp_path / "cache") == loaded.identity
