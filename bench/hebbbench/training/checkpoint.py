"""Where an interrupted cell goes on: one file a cell, whole or absent."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import torch

from hebbbench.record.store import write_atomic


class Checkpoint:
    """The checkpoint of one cell.

    Args:
        folder: where checkpoints lie.
        cell: the cell's identity; another rule, recipe, seed or protocol is another file.
        interval: seconds between two checkpoints.
    """

    def __init__(self, folder: Path, cell: str, interval: float = 60.0) -> None:
        self.path = folder / f"{cell}.pt"
        self._interval = interval
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """What was saved, or None. A file that cannot be read is removed: the cell starts anew, with the same bits."""
        if not self.path.exists():
            return None
        try:
            loaded: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, ValueError, OSError, KeyError):
            self.path.unlink(missing_ok=True)
            return None
        return loaded

    def due(self) -> bool:
        """Whether the interval has passed since the last save."""
        return time.monotonic() - self._last >= self._interval

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint by `state` (tensors and plain values).

        Raises:
            ResultError: the folder cannot be written or the disk is full; the old checkpoint still stands.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(self.path, buffer.getvalue())
        self._last = time.monotonic()

    def remove(self) -> None:
        """The cell is done."""
        self.path.unlink(missing_ok=True)
