"""Where data are looked for and where decoded data are kept."""

from __future__ import annotations

import os
from pathlib import Path

DATA_VARIABLE = "HEBBBENCH_DATA"
CACHE_VARIABLE = "HEBBBENCH_CACHE"


def resolve_data_root(data_root: Path | None) -> Path | None:
    """The folder datasets are read from: the argument, else HEBBBENCH_DATA, else none."""
    if data_root is not None:
        return Path(data_root).expanduser()
    value = os.environ.get(DATA_VARIABLE)
    return Path(value).expanduser() if value else None


def resolve_cache(cache: Path | None) -> Path:
    """The cache folder: the argument, else HEBBBENCH_CACHE, else hebbbench in the user's cache folder."""
    if cache is not None:
        return Path(cache).expanduser()
    value = os.environ.get(CACHE_VARIABLE)
    if value:
        return Path(value).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a relative value.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "hebbbench"
