"""Tiny datasets in every layout HebbBench reads, for the data tests."""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from hebbbench.data.spec import DatasetSpec
from hebbbench.data.split import Split

GREY = DatasetSpec(
    name="tiny-grey",
    classes=3,
    shape=(7, 5, 1),
    counts={"train": 24, "test": 9},
    hub_id="lab/tiny-grey",
    subfolders=("tiny-grey/main", "tiny-grey"),
    torchvision_class="MNIST",
    torchvision_folder="MNIST/raw",
)
COLOUR = DatasetSpec(
    name="tiny-colour",
    classes=4,
    shape=(32, 32, 3),
    counts={"train": 20, "test": 8},
    hub_id="lab/tiny-colour",
    subfolders=("tiny-colour/main", "tiny-colour"),
    image_column="img",
    label_column="fine_label",
    torchvision_class="CIFAR10",
    torchvision_folder="cifar-10-batches-py",
)


def samples(spec: DatasetSpec, seed: int = 0) -> dict[str, Split]:
    """Random splits of the spec's sizes, every class in each."""
    rng = np.random.default_rng(seed)
    splits = {}
    for split, count in spec.counts.items():
        images = rng.integers(0, 256, (count, *spec.shape), dtype=np.uint8)
        labels = rng.permutation(np.arange(count) % spec.classes).astype(np.int64)
        splits[split] = Split(images, labels)
    return splits


def encoded(image: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """One image (H, W, C) as the bytes of a file; WebP is lossless unless told otherwise."""
    stream = io.BytesIO()
    if kind == "WEBP":
        options = {"lossless": True, "exact": True, **options}
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(stream, kind, **options)
    return stream.getvalue()


def write_table(path: Path, spec: DatasetSpec, cells: list, labels: list) -> None:
    """One parquet file with Hugging Face's columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": cell, "path": None} for cell in cells]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = {spec.image_column: pa.array(images, kind), spec.label_column: pa.array(labels)}
    pq.write_table(pa.table(table), path)


def write_parquet(root: Path, spec: DatasetSpec, splits: dict[str, Split], kind: str = "PNG") -> Path:
    """Two shards a split below `root`; returns the folder they are in."""
    folder = root / spec.subfolders[0]
    for split, data in splits.items():
        half = len(data) // 2
        for shard, part in enumerate((slice(None, half), slice(half, None))):
            cells = [encoded(image, kind) for image in data.images[part]]
            name = f"{split}-{shard:05d}-of-00002.parquet"
            write_table(folder / name, spec, cells, data.labels[part].tolist())
    return folder


def write_idx(root: Path, splits: dict[str, Split]) -> Path:
    """torchvision's MNIST folder below `root`; returns the folder of the files."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        data = splits[split]
        head = struct.pack(">4i", 0x803, *data.images.shape[:3])
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(head + data.images.tobytes())
        head = struct.pack(">2i", 0x801, len(data))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(head + data.labels.astype(np.uint8).tobytes())
    return folder


def write_cifar(root: Path, splits: dict[str, Split], monkeypatch) -> Path:
    """torchvision's CIFAR-10 folder below `root`, whose class is told not to expect the published MD5s."""
    from torchvision.datasets import CIFAR10

    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", None]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", None]])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None})
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, split in (("data_batch_1", "train"), ("test_batch", "test")):
        planes = splits[split].images.transpose(0, 3, 1, 2).reshape(len(splits[split]), -1)
        record = {"data": np.ascontiguousarray(planes), "labels": splits[split].labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(record))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b", "c", "d"]}))
    return folder


def write_stl(root: Path, splits: dict[str, Split], monkeypatch, unlabelled: np.ndarray | None = None) -> Path:
    """torchvision's STL-10 folder below `root`, whose class is told not to expect the published MD5s."""
    from torchvision.datasets import STL10

    files = {split: [[f"{split}_X.bin", None], [f"{split}_y.bin", None]] for split in splits}
    monkeypatch.setattr(STL10, "train_list", [*files["train"], ["unlabeled_X.bin", None]])
    monkeypatch.setattr(STL10, "test_list", files["test"])
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    bare = b"" if unlabelled is None else unlabelled.transpose(0, 3, 2, 1).tobytes()
    (folder / "unlabeled_X.bin").write_bytes(bare)
    for split, data in splits.items():
        # Column by column, and classes counted from 1.
        (folder / f"{split}_X.bin").write_bytes(data.images.transpose(0, 3, 2, 1).tobytes())
        (folder / f"{split}_y.bin").write_bytes((data.labels + 1).astype(np.uint8).tobytes())
    return folder


def hub_table(spec: DatasetSpec, data: Split):
    """A `datasets.Dataset` like the one the hub serves."""
    import datasets

    features = datasets.Features(
        {
            spec.image_column: datasets.Image(),
            spec.label_column: datasets.ClassLabel(num_classes=spec.classes),
        }
    )
    columns = {
        spec.image_column: [{"bytes": encoded(image), "path": None} for image in data.images],
        spec.label_column: data.labels.tolist(),
    }
    return datasets.Dataset.from_dict(columns, features=features)


def shuffled(splits: dict[str, Split], seed: int = 1) -> dict[str, Split]:
    """The same samples in another order."""
    rng = np.random.default_rng(seed)
    orders = {split: rng.permutation(len(data)) for split, data in splits.items()}
    return {split: Split(data.images[orders[split]], data.labels[orders[split]]) for split, data in splits.items()}
