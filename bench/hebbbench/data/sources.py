"""The search for a dataset: embedded, parquet below the data root, torchvision's layout there, the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hebbbench.errors import DataError

from .digits import read_digits
from .hub import by_hand, read_hub
from .images import Advance
from .parquet import find_parquet, read_parquet
from .spec import DatasetSpec
from .split import Split
from .teacher import ask_teacher
from .torchvision_folder import find_torchvision, read_torchvision


@dataclass(frozen=True)
class Source:
    """A place a dataset can be read from. `folder` is None for embedded data and the hub.

    `label` tells a reader of a result where the data came from; it is relative to the data root, so no
    machine's paths are recorded.
    """

    kind: Literal["embedded", "parquet", "torchvision", "hub"]
    label: str
    folder: Path | None = None


def find_local(spec: DatasetSpec, data_root: Path | None) -> Source | None:
    """The first place on this machine that has the dataset, or None.

    Raises DataError if the data root is not a folder that can be read.
    """
    if spec.embedded:
        return Source("embedded", "embedded")
    if data_root is None:
        return None
    if not data_root.is_dir():
        raise DataError(f"the data root {data_root} is not a folder. {by_hand(spec)}")
    try:
        subfolder = find_parquet(spec, data_root)
        if subfolder is not None:
            return Source("parquet", f"parquet {subfolder}", data_root / subfolder)
        subfolder = find_torchvision(spec, data_root)
    except PermissionError as error:
        raise DataError(
            f"{error.filename} below the data root {data_root} cannot be read. Give read permission."
        ) from error
    if subfolder is not None:
        return Source("torchvision", f"torchvision {spec.torchvision_folder}", data_root / subfolder)
    return None


def find_source(spec: DatasetSpec, data_root: Path | None, offline: bool) -> Source:
    """The first place that has the dataset, the hub being the last; raises DataError if there is none."""
    source = find_local(spec, data_root)
    if source is not None:
        return source
    if offline or spec.hub_id is None:
        looked = "no data root is set" if data_root is None else f"the data root {data_root} does not have it"
        hub = "no copy on the hub is known" if spec.hub_id is None else "this run is offline"
        raise DataError(f"the dataset {spec.name} is not on this machine: {looked}, and {hub}. {by_hand(spec)}")
    return Source("hub", f"hub {spec.hub_id}")


def read_source(spec: DatasetSpec, source: Source, advance: Advance) -> dict[str, Split]:
    """Both splits, in the source's own order; raises DataError if the data are not as the spec says."""
    if source.kind == "embedded":
        splits = read_digits(spec) if spec.teacher is None else ask_teacher(spec)
        advance(sum(map(len, splits.values())))
        return splits
    splits = {}
    for split in spec.splits:
        if source.kind == "hub":
            splits[split] = read_hub(spec, split, advance)
        elif source.kind == "parquet":
            splits[split] = read_parquet(spec, _folder(source), split, advance)
        else:
            splits[split] = read_torchvision(spec, _folder(source), split)
            advance(len(splits[split]))
    return splits


def _folder(source: Source) -> Path:
    if source.folder is None:
        raise DataError(f"the source '{source.label}' names no folder to read.")
    return source.folder
