"""Loading a dataset: decoded once, checked against its pin, its test split sealed until it is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from hebbbench.errors import DataError

from .cache import (
    Entry,
    await_entry,
    entry_folder,
    open_entry,
    publish,
    seal_entry,
    workspace,
    write_entry,
    writing,
)
from .encoded import EncodedSplit, find_encoded, pack
from .encoded import by_hand as by_hand_encoded
from .identity import identity_of_digests, order_of_digests, pins, sample_digests
from .places import resolve_cache, resolve_data_root
from .sources import Source, find_source, read_source
from .spec import DatasetSpec, dataset_spec
from .split import Split

Progress = Callable[[int, int], None]
"""Called with the number of samples decoded so far and the number there are."""


@dataclass(eq=False)
class _Seal:
    """Holds the test split until it is taken, once."""

    split: Split | EncodedSplit | None

    def take(self, name: str) -> Split | EncodedSplit:
        if self.split is None:
            raise DataError(
                f"the test split of {name} has already been opened: it is read once, when training is over. "
                "Choose between models on a validation cut of the training split."
            )
        split, self.split = self.split, None
        return split


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset ready to train on, in canonical order. `shape` is (height, width, channels).

    `identity` gives each split's identity; `pinned` says whether HebbBench knows it to be the right one.
    `source` says where the data were read from. `unlabelled` are images to learn from in place of the training split,
    if there are any, for rules that see no label.
    """

    name: str
    classes: int
    shape: tuple[int, int, int]
    train: Split | EncodedSplit
    identity: dict[str, str]
    pinned: bool
    source: str
    _test: _Seal = field(repr=False)
    unlabelled: Split | EncodedSplit | None = None

    def open_test(self) -> Split | EncodedSplit:
        """The test split. It is given once: a second call raises DataError."""
        return self._test.take(self.name)

    def beside(self, other: Dataset) -> Dataset:
        """This dataset with the images of another to learn from; its identity covers both.

        Raises:
            DataError: the other's images are of another shape.
        """
        if other.shape != self.shape:
            raise DataError(
                f"images of {other.name} are {other.shape} (height, width, channels), those of {self.name} "
                f"{self.shape}: a network takes one shape. Choose unlabelled images of the same shape."
            )
        identity = {**self.identity, "unlabelled": other.identity["train"]}
        return replace(self, unlabelled=other.train, identity=identity, pinned=self.pinned and other.pinned)


def load(
    name: str,
    *,
    data_root: Path | None = None,
    cache: Path | None = None,
    offline: bool | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Dataset `name` from the cache, decoding it into the cache first if it is not there.

    `data_root` and `cache` default to HEBBBENCH_DATA (else none) and HEBBBENCH_CACHE (else the user's cache
    folder). With `offline` the hub is not used; HF_HUB_OFFLINE lets it be used as far as Hugging Face's own
    cache goes. Raises DataError if the data are missing, corrupt or not the ones HebbBench has pinned, and
    UnknownNameError if there is no such dataset.
    """
    spec = dataset_spec(name)
    entry = ensure_entry(spec, data_root=data_root, cache=cache, offline=offline, progress=progress)
    return Dataset(
        name=name,
        classes=spec.classes,
        shape=spec.shape,
        train=entry.splits["train"],
        identity=entry.identity,
        pinned=spec.stored in pins(),
        source=entry.source,
        _test=_Seal(entry.splits.get("test")),
    )


def ensure_entry(
    spec: DatasetSpec,
    *,
    data_root: Path | None,
    cache: Path | None,
    offline: bool | None,
    progress: Progress | None,
    rebuild: bool = False,
) -> Entry:
    """The dataset's cache entry, made if it is missing or not whole, or if `rebuild`."""
    folder = entry_folder(resolve_cache(cache), spec)
    entry = None if rebuild else open_entry(folder, spec)
    if entry is not None:
        return entry
    if spec.raw is not None:
        return _packed(spec, folder, resolve_data_root(data_root), progress, rebuild)
    source = find_source(spec, resolve_data_root(data_root), bool(offline))
    # The workspace comes first: a cache that cannot be written fails before the decoding, not after.
    with workspace(folder) as partial:
        splits, identity = _read_canonical(spec, source, progress)
        write_entry(partial, spec, splits, identity, source.label)
        publish(partial, folder, spec, replace=rebuild)
    return await_entry(folder, spec)


def _packed(spec: DatasetSpec, folder: Path, data_root: Path | None, progress: Progress | None, rebuild: bool) -> Entry:
    """The entry of a dataset that stays encoded, made from what lies below the data root."""
    found = find_encoded(spec, data_root) if data_root is not None else None
    if found is None:
        looked = "no data root is set" if data_root is None else f"the data root {data_root} does not have it"
        raise DataError(f"the dataset {spec.stored} is not on this machine: {looked}. {by_hand_encoded(spec)}")
    kind, place = found
    with workspace(folder) as partial:
        with writing(folder.parent):
            identity = pack(spec, kind, place, partial, _advance(spec, progress))
        check_pins(spec, identity, f"{spec.stored} from {place}")
        seal_entry(partial, spec, identity, f"{kind} {place.name}")
        publish(partial, folder, spec, replace=rebuild)
    return await_entry(folder, spec)


def _advance(spec: DatasetSpec, progress: Progress | None) -> Callable[[int], None]:
    total = sum(spec.counts.values())
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    return advance


def _read_canonical(
    spec: DatasetSpec, source: Source, progress: Progress | None
) -> tuple[dict[str, Split], dict[str, str]]:
    """The splits of `source` in canonical order with their identities, checked against the pins."""
    splits: dict[str, Split] = {}
    identity: dict[str, str] = {}
    for split, raw in read_source(spec, source, _advance(spec, progress)).items():
        digests = sample_digests(raw.images, raw.labels)
        order = order_of_digests(digests)
        splits[split] = Split(raw.images[order], raw.labels[order])
        identity[split] = identity_of_digests(digests)
    check_pins(spec, identity, f"{spec.name} from {source.folder or source.label}")
    return splits, identity


def check_pins(spec: DatasetSpec, identity: dict[str, str], where: str) -> None:
    """Raise DataError if a pinned split's identity is not the one found; `where` names the data."""
    for split, expected in pins().get(spec.stored, {}).items():
        if identity[split] != expected:
            remedy = f"Get {spec.hub_id} from the Hugging Face hub again" if spec.hub_id else "Reinstall HebbBench"
            raise DataError(
                f"{where}: the {split} split has identity {identity[split]}, expected {expected}: "
                "its pixels or labels are not the ones HebbBench measures on. "
                f"{remedy}, or point --data-root at another copy."
            )
