"""What the command line does with datasets: say what is there, prepare it, verify it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hebbbench.errors import DataError

from .cache import entry_folder, open_entry
from .dataset import Progress, check_pins, ensure_entry
from .encoded import EncodedSplit, find_encoded
from .encoded import by_hand as by_hand_encoded
from .hub import by_hand
from .identity import identity_of_digests, pins, sample_digests
from .places import resolve_cache, resolve_data_root
from .sources import find_local
from .spec import DATASETS, DatasetSpec, dataset_spec


@dataclass(frozen=True)
class DatasetStatus:
    """Where one dataset stands on this machine.

    `found` is the place it can be read from without a download and `cached` its cache entry; None if there
    is none. `identity` is the cached entry's. `advice` is a sentence on what to do next.
    """

    name: str
    embedded: bool
    found: str | None
    cached: Path | None
    pinned: bool
    identity: dict[str, str] | None
    advice: str


def status(data_root: Path | None = None, cache: Path | None = None) -> list[DatasetStatus]:
    """The status of every dataset. Decodes and downloads nothing; raises nothing for a bad data root."""
    return [_status(spec, data_root, cache) for spec in DATASETS.values()]


def _status(spec: DatasetSpec, data_root: Path | None, cache: Path | None) -> DatasetStatus:
    found, fault = None, ""
    entry = None
    try:
        root = resolve_data_root(data_root)
        if spec.raw is not None:
            place = find_encoded(spec, root) if root is not None else None
            found = str(place[1]) if place is not None else None
        elif (source := find_local(spec, root)) is not None:
            found = str(source.folder or source.label)
        entry = open_entry(entry_folder(resolve_cache(cache), spec), spec)
    except DataError as error:
        fault = str(error)
    if entry is not None:
        advice = "Ready."
    elif fault:
        advice = fault
    elif found is not None:
        done = "decoded" if spec.raw is None else "packed into the cache"
        advice = f"Ready; {done} at first use, or now with 'hebbbench data prepare {spec.name}'."
    elif spec.raw is not None:
        advice = f"Not on this machine. {by_hand_encoded(spec)}"
    elif spec.hub_id is None:
        advice = f"Not on this machine. {by_hand(spec)}"
    else:
        advice = f"Not on this machine. It is downloaded from {spec.hub_id} at first use. Or: {by_hand(spec)}"
    pinned = spec.stored in pins()
    if not pinned:
        advice += " Unpinned: HebbBench knows no identity to check it against."
    return DatasetStatus(
        name=spec.name,
        embedded=spec.embedded,
        found=found,
        cached=entry.folder if entry else None,
        pinned=pinned,
        identity=entry.identity if entry else None,
        advice=advice,
    )


def prepare(
    name: str,
    *,
    data_root: Path | None = None,
    cache: Path | None = None,
    offline: bool | None = None,
    progress: Progress | None = None,
    rebuild: bool = False,
) -> DatasetStatus:
    """Put dataset `name` in the cache, anew if `rebuild`; arguments and errors as for `load`."""
    spec = dataset_spec(name)
    ensure_entry(spec, data_root=data_root, cache=cache, offline=offline, progress=progress, rebuild=rebuild)
    return _status(spec, data_root, cache)


def verify(name: str, *, cache: Path | None = None) -> dict[str, str]:
    """The identities {split: identity} recomputed from every cached byte of dataset `name`.

    Raises DataError if it is not cached, if they differ from the recorded or the pinned ones, or if the
    samples are not in canonical order.
    """
    spec = dataset_spec(name)
    folder = entry_folder(resolve_cache(cache), spec)
    entry = open_entry(folder, spec, touched=True)
    if entry is None:
        raise DataError(f"{name} has no whole cache entry at {folder}. Run: hebbbench data prepare {name}")
    identity = {}
    for split in spec.splits:
        samples = entry.splits[split]
        if isinstance(samples, EncodedSplit):
            digests = samples.digests()
            for i in range(len(samples)):
                samples.image(i)
        else:
            digests = sample_digests(samples.images, samples.labels)
        identity[split] = identity_of_digests(digests)
        fault = None
        if identity[split] != entry.identity[split]:
            fault = f"has identity {identity[split]}, recorded as {entry.identity[split]}"
        elif digests != sorted(digests):
            fault = "is not in canonical order"
        if fault is not None:
            raise DataError(
                f"the cache entry {folder} is damaged: its {split} split {fault}. "
                f"Delete that folder and run: hebbbench data prepare {name}"
            )
    check_pins(spec, identity, str(folder))
    return identity
