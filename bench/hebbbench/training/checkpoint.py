"""Where an interrupted cell goes on: one file a cell, whole or absent."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from hebbbench.files import write_atomic
from hebbbench.training.epochs import Epochs
from hebbbench.training.sealed import seal, unseal
from hebbbench.world import ALONE, World


class Checkpoint:
    """The checkpoint of one cell. It remembers the number of threads, which decides the order of sums, and so the bits.

    Args:
        folder: where checkpoints lie.
        cell: the cell's identity; another rule, recipe, seed or protocol is another file.
        interval: seconds between two checkpoints.
        early: write the first as soon as possible, so that what one takes is known.
        world: of the processes that train the cell, which all hold the same, the first one keeps the file.

    Attributes:
        damaged: whether what `load` found could not be read.
        epochs: the network after every epoch, where it is kept: it goes with the checkpoint.
    """

    def __init__(
        self, folder: Path, cell: str, interval: float = 60.0, early: bool = False, world: World = ALONE
    ) -> None:
        self.path = folder / f"{cell}.pt"
        self.epochs = Epochs(folder / f"{cell}.epochs", world)
        self._interval = interval
        self._early = early
        self._world = world
        self._last = time.monotonic()
        self.damaged = False

    def load(self) -> dict[str, Any] | None:
        """What was saved, or None. A damaged file is removed: the cell starts anew, with the same bits."""
        loaded = self._world.told(self._read)
        if loaded is not None:
            torch.set_num_threads(loaded["threads"])
        return loaded

    def _read(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        loaded = unseal(self.path)
        if loaded is None:
            self.remove()
            self.damaged = True
        return loaded

    def due(self) -> bool:
        """Whether the interval has passed since the last save."""
        return self._world.any(self._world.rank == 0 and self._has_passed())

    def _has_passed(self) -> bool:
        return self._early or time.monotonic() - self._last >= self._interval

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint by `state` (tensors and plain values).

        Raises:
            ResultError: the folder cannot be written or the disk is full; the old checkpoint still stands.
        """
        if self._world.rank:
            return
        write_atomic(self.path, seal({"threads": torch.get_num_threads(), **state}), "--cache")
        self._last, self._early = time.monotonic(), False

    def remove(self) -> None:
        """The cell is done; what a killed process left half-written goes too."""
        if self._world.rank:
            return
        for path in (self.path, *self.path.parent.glob(f".{self.path.name}.*.tmp")):
            path.unlink(missing_ok=True)
        self.epochs.remove()
