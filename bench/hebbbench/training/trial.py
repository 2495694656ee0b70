"""One trial of a search: its cells run one after the other, and what each scored is kept in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import NonNegativeFloat, ValidationError

from hebbbench.cell import Cell
from hebbbench.data.places import resolve_cache
from hebbbench.files import write_atomic
from hebbbench.progress import Reporter, Silent
from hebbbench.record.schema import Result
from hebbbench.report import point
from hebbbench.training.run import Settings, run_cell
from hebbbench.validation import Strict, canonical_json


@dataclass(frozen=True)
class Trial:
    """One point of the search: what was chosen, and the mean validation accuracy over the tuning seeds.

    `seconds` is what its cells took, whenever they ran.
    """

    choice: dict[str, Any]
    score: float | None
    reason: str | None
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """What was chosen, as text."""
        return ", ".join(f"{key}={value}" for key, value in self.choice.items())

    def __str__(self) -> str:
        told = self.reason if self.score is None else f"{100 * self.score:.2f} % on validation"
        return f"{self.name}: {told}"


class Kept(Strict):
    """What the search keeps of a cell in the cache: its score or the reason why it has none, and its seconds."""

    score: float | None
    reason: str | None
    seconds: NonNegativeFloat


def tried(
    choice: dict[str, Any], trial_cells: Sequence[tuple[Cell, str]], settings: Settings, out: Reporter
) -> tuple[Trial, bool]:
    """One trial, up to its first cell without a score, and whether any of its cells has run now.

    Args:
        trial_cells: each with its identity.
    """
    scores, reason, seconds, anew = [], None, 0.0, False
    for cell, identity in trial_cells:
        if reason is None:
            kept, ran = _scored(cell, identity, settings, out)
            anew, seconds = anew or ran, seconds + kept.seconds
            if kept.score is None:
                reason = kept.reason
            else:
                scores.append(kept.score)
        out.advance(1)
    return Trial(choice, sum(scores) / len(scores) if reason is None else None, reason, seconds), anew


def _scored(cell: Cell, identity: str, settings: Settings, out: Reporter) -> tuple[Kept, bool]:
    """What a cell scored on the validation split, and whether it has run for that now; else the cache had it."""
    place = resolve_cache(settings.cache) / "tuning" / f"{identity}.json"
    try:
        return Kept.model_validate_json(place.read_bytes()), False
    except (OSError, ValidationError):
        pass

    def keep(result: Result) -> None:
        if result.status != "failed":  # what failed is run again, as in any run
            text = canonical_json(_score(cell, result).model_dump(mode="json"))
            write_atomic(place, f"{text}\n".encode(), "--cache")

    within = Within(out, f"seed {cell.seed} {point(cell.axes)}".rstrip())
    return _score(cell, run_cell(cell, None, settings, within, read_test=False, keep=keep)), True


def _score(cell: Cell, result: Result) -> Kept:
    name = cell.protocol.headline.replace(".test.", ".validation.")
    metric = result.metrics.get(name)
    value, reason = (None, None) if metric is None else (metric.value, metric.reason)
    if value is None:
        reason = result.reason or reason or f"no {name} was measured"
    return Kept(score=value, reason=reason, seconds=result.cost.wall_seconds)


class Within(Silent):
    """The progress of one cell of a search, as a note on the search's own."""

    def __init__(self, out: Reporter, cell: str) -> None:
        self._out, self._cell = out, cell
        self._name, self._done, self._total = "", 0, 0

    def phase(self, name: str, total: int, done: int = 0) -> None:
        self._name, self._done, self._total = name, done, total

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._done += steps
        self._out.advance(0, f"{self._cell}: {self._name} {self._done}/{self._total}")

    def say(self, text: str) -> None:
        self._out.say(text)
