"""What `--force` asks for once more: a mark in the cache stands until the cell has run, so what was stopped goes on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hebbbench.files import write_atomic
from hebbbench.training.checkpoint import Checkpoint


class Again:
    """The cells that are to run although they are done.

    Args:
        cache: the folder that their checkpoints lie in, too.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def ask(self, identities: Iterable[str]) -> None:
        """Mark cells and drop their checkpoints; if some of them are marked already, those alone are left to run.

        Raises:
            ResultError: the cache cannot be written.
        """
        asked = list(identities)
        if any(map(self.asked, asked)):
            return
        for identity in asked:
            Checkpoint(self._cache / "checkpoints", identity).remove()
            write_atomic(self._mark(identity), b"", "--cache")

    def asked(self, identity: str) -> bool:
        """Whether this cell is to run, whatever there is of it."""
        return self._mark(identity).exists()

    def answered(self, identity: str) -> None:
        """The cell has run."""
        self._mark(identity).unlink(missing_ok=True)

    def _mark(self, identity: str) -> Path:
        return self._cache / "again" / identity
