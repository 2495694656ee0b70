"""A cell is run by one process at a time: whoever runs it keeps away the others that share its cache."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from hebbbench.errors import CellTaken


class Claim:
    """The claim to one cell: a locked file, which the system lets go of when the process dies, however it dies.

    Args:
        folder: where claims lie; cell: the cell's identity.
    """

    def __init__(self, folder: Path, cell: str) -> None:
        self._path = folder / f"{cell}.lock"
        self._file: int | None = None

    def take(self, name: object) -> None:
        """Claim the cell. Where files cannot be locked nobody is kept away, and nothing is lost but work done twice.

        Args:
            name: of the cell, for the error.

        Raises:
            CellTaken: another process has it.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    os.close(file)
                    raise
                if self._stands(file):
                    self._file = file
                    return
                os.close(file)  # who had it before removed it between the two calls
        except BlockingIOError as error:
            raise CellTaken(
                f"{name} is being run by another process. When that one is done, or stopped, the same command goes on."
            ) from error
        except OSError:
            return

    def _stands(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let go of the cell."""
        if self._file is None:
            return
        self._path.unlink(missing_ok=True)
        fcntl.flock(self._file, fcntl.LOCK_UN)
        os.close(self._file)
        self._file = None
