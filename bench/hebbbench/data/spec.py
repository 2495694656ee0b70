"""What each dataset is: its shape, its size, and the names it has in each place it can be found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hebbbench.errors import unknown_name


@dataclass(frozen=True)
class DatasetSpec:
    """One dataset.

    `shape` is (height, width, channels); `counts` gives the number of images per split. Without `classes` it has no
    labels (each is −1), only images to learn from, all in the training split. `subfolders` are the folders below a data
    root where Hugging Face parquet files are looked for, in order. `torchvision_folder` is where torchvision's class
    `torchvision_class` keeps its files below its root.
    An embedded dataset comes with an installed package and needs no data root.

    `raw` names a dataset whose images keep their files' form and size and are decoded as they are used; `shape` is then
    what a network gets. Several datasets may share one `raw`. `folders` are where its images may lie below a data root,
    in one folder a class.

    A `teacher` dataset is made, not found: what a random network of that kind answers (see `teacher`). Its `classes`
    numbers an input are targets, float32, in place of a class; its inputs, of `shape` (1, 1, n), are float32, or for a
    transformer tokens, uint8.
    """

    name: str
    classes: int
    shape: tuple[int, int, int]
    counts: Mapping[str, int]
    hub_id: str | None = None
    subfolders: tuple[str, ...] = ()
    image_column: str = "image"
    label_column: str = "label"
    torchvision_class: str | None = None
    torchvision_folder: str | None = None
    embedded: bool = False
    teacher: Literal["mlp", "transformer"] | None = None
    raw: str | None = None
    folders: tuple[str, ...] = ()

    @property
    def input_type(self) -> str:
        """The NumPy type of an input's numbers."""
        return "float32" if self.teacher == "mlp" else "uint8"

    @property
    def target_type(self) -> str:
        """The NumPy type of what is to be predicted."""
        return "int64" if self.teacher is None else "float32"

    def target_shape(self, split: str) -> tuple[int, ...]:
        """The shape of a split's targets: (N,) classes, or (N, outputs)."""
        return (self.counts[split],) if self.teacher is None else (self.counts[split], self.classes)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits it has, in the order in which they are read and kept."""
        return tuple(self.counts)

    @property
    def stored(self) -> str:
        """The name under which its samples are cached and pinned."""
        return self.raw or self.name


def _subfolders(hub_id: str, config: str) -> tuple[str, ...]:
    """Where a copy of the hub repository's `config` folder may lie below a data root."""
    name = hub_id.split("/")[1]
    return (f"{name}/{config}", name, f"{hub_id}/{config}", hub_id)


DATASETS: dict[str, DatasetSpec] = {
    "digits": DatasetSpec(
        name="digits",
        classes=10,
        shape=(8, 8, 1),
        counts={"train": 1442, "test": 355},
        embedded=True,
    ),
    "mnist": DatasetSpec(
        name="mnist",
        classes=10,
        shape=(28, 28, 1),
        counts={"train": 60000, "test": 10000},
        hub_id="ylecun/mnist",
        subfolders=_subfolders("ylecun/mnist", "mnist"),
        torchvision_class="MNIST",
        torchvision_folder="MNIST/raw",
    ),
    "cifar10": DatasetSpec(
        name="cifar10",
        classes=10,
        shape=(32, 32, 3),
        counts={"train": 50000, "test": 10000},
        hub_id="uoft-cs/cifar10",
        subfolders=_subfolders("uoft-cs/cifar10", "plain_text"),
        image_column="img",
        torchvision_class="CIFAR10",
        torchvision_folder="cifar-10-batches-py",
    ),
    "cifar100": DatasetSpec(
        name="cifar100",
        classes=100,
        shape=(32, 32, 3),
        counts={"train": 50000, "test": 10000},
        hub_id="uoft-cs/cifar100",
        subfolders=_subfolders("uoft-cs/cifar100", "cifar100"),
        image_column="img",
        label_column="fine_label",
        torchvision_class="CIFAR100",
        torchvision_folder="cifar-100-python",
    ),
    "stl10": DatasetSpec(
        name="stl10",
        classes=10,
        shape=(96, 96, 3),
        counts={"train": 5000, "test": 8000},
        subfolders=("stl10", "stl10/data"),
        torchvision_class="STL10",
        torchvision_folder="stl10_binary",
    ),
    "stl10-unlabelled": DatasetSpec(
        name="stl10-unlabelled",
        classes=0,
        shape=(96, 96, 3),
        counts={"train": 100000},
        torchvision_class="STL10",
        torchvision_folder="stl10_binary",
    ),
    "teacher-mlp": DatasetSpec(
        name="teacher-mlp",
        classes=32,
        shape=(1, 1, 32),
        counts={"train": 20000, "test": 2000},
        embedded=True,
        teacher="mlp",
    ),
    "teacher-transformer": DatasetSpec(
        name="teacher-transformer",
        classes=32,
        shape=(1, 1, 32),
        counts={"train": 20000, "test": 2000},
        embedded=True,
        teacher="transformer",
    ),
}

for _size in (160, 210, 224):
    DATASETS[f"imagenet-{_size}"] = DatasetSpec(
        name=f"imagenet-{_size}",
        classes=1000,
        shape=(_size, _size, 3),
        counts={"train": 1281167, "test": 50000},
        hub_id="ILSVRC/imagenet-1k",
        subfolders=("imagenet-1k/data", "imagenet-1k", "ILSVRC/imagenet-1k/data"),
        raw="imagenet",
        folders=("imagenet", "ILSVRC2012"),
    )
DATASETS["imagenette-160"] = DatasetSpec(
    name="imagenette-160",
    classes=10,
    shape=(160, 160, 3),
    counts={"train": 9469, "test": 3925},
    hub_id="frgfm/imagenette",
    subfolders=("imagenette/full_size", "frgfm/imagenette/full_size"),
    raw="imagenette",
    folders=("imagenette2",),
)


def dataset_names() -> list[str]:
    """The names of all datasets, in the order they are listed to a reader."""
    return list(DATASETS)


def dataset_spec(name: str) -> DatasetSpec:
    """The spec of dataset `name`; raises UnknownNameError if there is none of that name."""
    if name not in DATASETS:
        raise unknown_name("dataset", name, DATASETS)
    return DATASETS[name]
