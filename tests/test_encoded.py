"""Images that stay encoded: packed from folders and parquet alike, decoded by workers, damage named."""

from __future__ import annotations

import io
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from hebbbench import data
from hebbbench.data.decoding import Decoded, _leave_signals_to_the_parent, ahead, worker_count
from hebbbench.data.encoded import EncodedSplit
from hebbbench.data.spec import DATASETS, DatasetSpec
from hebbbench.errors import DataError

# From Python 3.12 on, forking workers beside torch's threads warns; a worker touches neither them nor the device.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

SPEC = DatasetSpec(
    name="tiny-16",
    classes=3,
    shape=(16, 16, 3),
    counts={"train": 12, "test": 6},
    hub_id="lab/tiny",
    subfolders=("tiny/data",),
    raw="tiny",
    folders=("tiny",),
)
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]


def picture(number: int, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    """A picture of a size of its own, smooth in its middle."""
    rng = np.random.default_rng(number)
    shape = (20 + number % 5, 24 + number % 7)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(shape[::-1])
    stream = io.BytesIO()
    small.convert(mode).save(stream, kind)
    return stream.getvalue()


def samples() -> dict[str, list[tuple[bytes, int]]]:
    kinds = [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB")]
    return {
        split: [(picture(100 * len(split) + i, *kinds[i % 4]), i % 3) for i in range(count)]
        for split, count in SPEC.counts.items()
    }


def as_folder(root: Path, splits: dict[str, list[tuple[bytes, int]]]) -> Path:
    for split, rows in splits.items():
        for i, (file, label) in enumerate(rows):
            path = root / "tiny" / {"test": "val"}.get(split, split) / f"n{label}" / f"{i}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file)
    return root


def as_parquet(root: Path, splits: dict[str, list[tuple[bytes, int]]]) -> Path:
    (root / "tiny" / "data").mkdir(parents=True)
    for split, rows in splits.items():
        name = {"test": "validation"}.get(split, split)
        for shard, part in enumerate((rows[:4], rows[4:])):
            table = {"image": [{"bytes": f, "path": None} for f, _ in part], "label": [label for _, label in part]}
            pq.write_table(pa.table(table), root / "tiny" / "data" / f"{name}-0000{shard}.parquet")
    return root


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(DATASETS, SPEC.name, SPEC)


def load(root: Path, cache: Path) -> data.Dataset:
    return data.load(SPEC.name, data_root=root, cache=cache)


@pytest.fixture
def train(tmp_path) -> EncodedSplit:
    return load(as_folder(tmp_path / "root", samples()), tmp_path / "cache").train


def decoded(split: EncodedSplit, augment: str = "resized-crop-flip", workers: int = 0) -> Decoded:
    return Decoded(split, 16, device="cpu", mean=MEAN, std=STD, augment=augment, workers=workers)


# Packing


def test_a_folder_and_parquet_files_are_one_dataset(tmp_path):
    rows = samples()
    first = load(as_folder(tmp_path / "a", rows), tmp_path / "cache-a")
    second = load(as_parquet(tmp_path / "b", {s: r[::-1] for s, r in rows.items()}), tmp_path / "cache-b")
    assert first.identity == second.identity
    assert [first.train.read(i) for i in range(12)] == [second.train.read(i) for i in range(12)]
    assert first.train.labels.tolist() == second.train.labels.tolist()
    assert sorted((first.train.read(i), label) for i, label in enumerate(first.train.labels)) == sorted(rows["train"])


def test_the_packed_dataset_needs_its_source_no_more_and_is_verified(tmp_path):
    root = as_folder(tmp_path / "root", samples())
    made = load(root, tmp_path / "cache")
    assert load(tmp_path, tmp_path / "cache").identity == made.identity
    assert data.verify(SPEC.name, cache=tmp_path / "cache") == made.identity
    files = next((tmp_path / "cache").glob("tiny-*/train_files.bin"))
    bytes_ = bytearray(files.read_bytes())
    bytes_[200] ^= 1
    files.write_bytes(bytes_)
    with pytest.raises(DataError, match="damaged"):
        data.verify(SPEC.name, cache=tmp_path / "cache")


def test_sizes_share_what_is_packed(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "tiny-8", DatasetSpec(**{**vars(SPEC), "name": "tiny-8", "shape": (8, 8, 3)}))
    first = load(as_folder(tmp_path / "root", samples()), tmp_path / "cache")
    second = data.load("tiny-8", cache=tmp_path / "cache")
    assert second.identity == first.identity
    assert second.shape == (8, 8, 3)


@pytest.mark.parametrize("make", [as_folder, as_parquet])
def test_what_is_no_image_is_refused_with_its_place(tmp_path, make):
    rows = samples()
    rows["train"][5] = (b"<html>not found</html>", rows["train"][5][1])
    with pytest.raises(DataError, match=r"(5\.JPEG|train-00001\.parquet, row 1): it is no JPEG, PNG, WEBP image"):
        load(make(tmp_path, rows), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("tiny*"))


def test_a_missing_image_a_missing_class_and_a_missing_dataset_are_told_apart(tmp_path):
    rows = samples()
    short = {"train": rows["train"][:-1], "test": rows["test"]}
    with pytest.raises(DataError, match="train split of tiny has 11 images, expected 12"):
        load(as_folder(tmp_path / "a", short), tmp_path / "cache")
    two = {split: [(file, label % 2) for file, label in part] for split, part in rows.items()}
    with pytest.raises(DataError, match="has 2 folders, expected one for each of 3 classes"):
        load(as_folder(tmp_path / "b", two), tmp_path / "cache")
    with pytest.raises(DataError, match=r"does not have it\. Below the data root put tiny/data/train-\*\.parquet"):
        load(tmp_path, tmp_path / "cache")


def test_the_status_says_where_it_lies_and_what_to_do(tmp_path):
    def advice() -> str:
        return next(s.advice for s in data.status(tmp_path, tmp_path / "cache") if s.name == SPEC.name)

    assert advice().startswith("Not on this machine. Below the data root put")
    as_parquet(tmp_path, samples())
    assert "hebbbench data prepare tiny-16" in advice()
    load(tmp_path, tmp_path / "cache")
    assert advice().startswith("Ready.")


# Decoding


def test_a_plain_batch_is_the_middle_of_the_resized_image(train):
    x, y = decoded(train).plain(torch.tensor([3, 0, 7]))
    assert y.tolist() == train.labels[[3, 0, 7]].tolist()
    for row, i in enumerate([3, 0, 7]):
        image = Image.open(io.BytesIO(train.read(i))).convert("RGB")
        short = min(image.size)
        width, height = (int(side * 18 / short) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - 16) / 2), round((height - 16) / 2)
        pixels = np.asarray(image.crop((left, top, left + 16, top + 16)), dtype=np.float64)
        expected = (pixels / 255 - MEAN) / STD
        np.testing.assert_allclose(x[row].permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_augmentation_depends_on_the_generator_alone(train):
    parts = [torch.arange(5), torch.arange(5, 12)]

    def batches(workers: int, seed: int = 0) -> list[torch.Tensor]:
        sources = (torch.Generator().manual_seed(seed + i) for i in range(2))
        return [x for x, _ in ahead(decoded(train, workers=workers), parts, sources)]

    alone, others = batches(0), batches(0, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(alone, batches(2), strict=True))
    assert not torch.equal(alone[0], others[0])
    assert torch.equal(alone[0], decoded(train).batch(parts[0], torch.Generator().manual_seed(0))[0])
    assert torch.equal(decoded(train).plain(parts[0])[0], decoded(train, "none").batch(parts[0])[0])


def test_decoding_leaves_the_global_generator_alone(train):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    decoded(train).batch(torch.arange(3), torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_named_whoever_decodes_it(tmp_path, workers):
    rows = samples()
    whole = rows["train"][4][0]
    rows["train"][4] = (whole[: len(whole) - 100], 1)
    split = load(as_folder(tmp_path, rows), tmp_path / "cache").train
    (damaged,) = [i for i in range(12) if split.read(i) == rows["train"][4][0]]
    message = rf"train split of tiny: image {damaged}, of class 1, cannot be decoded \(.*\)\. Replace the file"
    with pytest.raises(DataError, match=message):
        list(ahead(decoded(split, workers=workers), [torch.arange(6), torch.arange(6, 12)]))
    with pytest.raises(DataError, match="cannot be decoded"):
        data.verify(SPEC.name, cache=tmp_path / "cache")


def test_settings_that_do_not_fit_are_refused(train, monkeypatch):
    with pytest.raises(DataError, match="augment 'crop-flip' is not to be had"):
        decoded(train, "crop-flip")
    monkeypatch.setenv("HEBBBENCH_WORKERS", "many")
    with pytest.raises(DataError, match="HEBBBENCH_WORKERS = 'many' is not a number"):
        worker_count()


def test_a_cell_trains_on_it_and_repeats_its_bits_with_and_without_workers(lab, tmp_path, monkeypatch):
    root = as_folder(tmp_path / "root", samples())
    changes = {
        "data": {
            "dataset": SPEC.name,
            "validation": 3,
            "mean": MEAN,
            "std": STD,
            "augment": "resized-crop-flip",
        },
        "training.batch_size": 4,
        "probe.statistics_samples": 8,
    }
    monkeypatch.setenv("HEBBBENCH_DATA", str(root))
    found = []
    for workers in ("0", "2"):
        monkeypatch.setenv("HEBBBENCH_WORKERS", workers)
        found.append(lab.run(lab.cell("ghl", lab.protocol("digits-deephebb", changes))))
    assert found[0].status == "ok", found[0].reason
    assert found[0].measurement() == found[1].measurement()
    assert found[0].metrics["probe.test.accuracy"].value is not None


def test_what_stops_a_whole_job_is_left_to_the_parent_by_its_workers():
    """Slurm, timeout and a terminal signal every process; a worker that died of it would be a failure of the cell."""
    stops = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in stops]
    try:
        _leave_signals_to_the_parent(0)
        for number in stops:
            signal.raise_signal(number)
    finally:
        for number, handler in zip(stops, before, strict=True):
            signal.signal(number, handler)
