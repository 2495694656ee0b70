"""The network as it was after every epoch of training, kept on disk until the test split is open."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from hebbbench.files import write_atomic
from hebbbench.training.sealed import seal, unseal
from hebbbench.world import ALONE, World


class Epochs:
    """A file an epoch, counted from 1 over all stages: whole, or absent.

    Args:
        folder: of one cell alone.
        world: of the processes that train the cell, which all hold the same, the first one keeps the files.
    """

    def __init__(self, folder: Path, world: World = ALONE) -> None:
        self.folder = folder
        self._world = world

    def keep(self, model: nn.Module, epoch: int) -> None:
        """Keep all parameters and buffers as they are after `epoch`.

        Raises:
            ResultError: the folder cannot be written or the disk is full.
        """
        if self._world.rank:
            return
        state = {name: value.cpu() for name, value in model.state_dict().items()}
        write_atomic(self._file(epoch), seal({"model": state}), "--cache")

    def load(self, epoch: int) -> dict[str, Tensor] | None:
        """What was kept, on every process; None if it is missing or damaged."""
        found = self._world.told(partial(unseal, self._file(epoch)))
        return None if found is None else found["model"]

    def missing(self, count: int) -> list[int]:
        """Which of the first `count` epochs are not there."""
        return self._world.told(lambda: [epoch for epoch in range(1, count + 1) if not self._file(epoch).exists()])

    def remove(self) -> None:
        """The cell is done or begins anew."""
        if self._world.rank == 0:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, epoch: int) -> Path:
        return self.folder / f"{epoch}.pt"
