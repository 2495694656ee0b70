"""What a check found: one outcome for each named check, as text for a person and as JSON for a machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from hebbbench import __version__
from hebbbench.files import write_atomic
from hebbbench.record.card import Card
from hebbbench.report import table
from hebbbench.validation import Strict, canonical_json

Status = Literal["passed", "failed", "expected", "skipped"]


class Outcome(Strict):
    """One named check. `expected` is a failure the rule declared, with its reason, in `expected_failures`."""

    name: str
    status: Status
    detail: str = ""


class Report(Strict):
    """All outcomes for one rule, and its plausibility card if it could be measured."""

    rule: str
    file: str
    outcomes: list[Outcome]
    card: Card | None
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether nothing failed that was not declared to fail."""
        return bool(self.outcomes) and all(outcome.status != "failed" for outcome in self.outcomes)

    @property
    def failures(self) -> list[Outcome]:
        """The checks that failed."""
        return [outcome for outcome in self.outcomes if outcome.status == "failed"]

    def outcome(self, name: str) -> Outcome:
        """The outcome of the check of that name.

        Raises:
            KeyError: the check did not run.
        """
        for outcome in self.outcomes:
            if outcome.name == name:
                return outcome
        raise KeyError(name)

    def plain(self) -> dict[str, Any]:
        """The report as plain data, with `passed` written out for a machine that reads nothing else."""
        return {**self.model_dump(mode="json"), "passed": self.passed}

    def __str__(self) -> str:
        rows = [(outcome.name, outcome.status.upper() if outcome.status == "failed" else outcome.status, outcome.detail)
                for outcome in self.outcomes]  # fmt: skip
        counts = [
            f"{number} {status}"
            for status in ("passed", "failed", "expected", "skipped")
            if (number := sum(outcome.status == status for outcome in self.outcomes))
        ]
        lines = [f"{self.rule}  ({self.file})", "", table(rows, ["check", "status", "detail"], fit=True)]
        if self.card is not None:
            lines += ["", self.card.text()]
        return "\n".join([*lines, "", f"{self.rule}: {', '.join(counts)} in {self.seconds:.1f} s"])


def save_json(reports: Sequence[Report], path: Path) -> None:
    """Write the reports to one JSON file, whole or not at all.

    Raises:
        ResultError: the file cannot be written.
    """
    plain = {
        "hebbbench": __version__,
        "passed": bool(reports) and all(report.passed for report in reports),
        "reports": [report.plain() for report in reports],
    }
    write_atomic(path, (canonical_json(plain) + "\n").encode(), "--json")
