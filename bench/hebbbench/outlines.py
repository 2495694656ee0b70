"""How much networks compute for one sample: counted once, then read from the cache, without torch or the network."""

from __future__ import annotations

import contextlib
import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from hebbbench import registry
from hebbbench.data.places import resolve_cache
from hebbbench.errors import HebbBenchError, ResultError
from hebbbench.files import write_atomic
from hebbbench.record.schema import NUMERICS_VERSION
from hebbbench.validation import canonical_json


class Outline(NamedTuple):
    """Of one sample: operations of a forward pass through body and read-out, and the number of features."""

    operations: int
    features: int


class Outlines:
    """The outlines that the cache has, and those counted since."""

    def __init__(self, folder: Path | None = None) -> None:
        self._path = resolve_cache(folder) / f"outlines-{NUMERICS_VERSION}.json"
        try:
            kept = json.loads(self._path.read_bytes())
            self._known: dict[str, Outline | None] = {key: Outline(*map(int, pair)) for key, pair in kept.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            self._known = {}
        self._kept = len(self._known)

    def of(self, architecture: str, options: dict[str, object], dataset: str) -> Outline | None:
        """The outline of a network for a dataset's samples; None if it cannot be built or counted here."""
        try:
            code = registry.architecture_source_hash(architecture)
        except HebbBenchError:
            return None
        key = canonical_json([architecture, options, dataset, code])
        if key not in self._known:
            self._known[key] = _counted(key)
        return self._known[key]

    def keep(self) -> None:
        """Write what was counted to the cache, if that can be written."""
        known = {key: found for key, found in self._known.items() if found is not None}
        if len(known) > self._kept:
            with contextlib.suppress(ResultError):
                write_atomic(self._path, (canonical_json(known) + "\n").encode(), "--cache")


@cache
def _counted(key: str) -> Outline | None:
    from hebbbench.training.outline import count

    try:
        outline = Outline(*count(*json.loads(key)[:3]))
    except (HebbBenchError, RuntimeError):
        return None
    return outline if outline.operations else None
