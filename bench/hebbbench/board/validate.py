"""Whether result files are what they claim: for `hebbbench validate` and for checking a pull request."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from hebbbench.board.current import problem_text, sift
from hebbbench.board.text import in_folder
from hebbbench.plan import Sources, gather


class Finding(NamedTuple):
    """What is to say about a file. A `problem` wants repair; a `note` says why a sound file does not
    count."""

    path: Path
    problem: str | None
    note: str | None

    def __str__(self) -> str:
        return f"{self.path}: {self.problem if self.problem is not None else f'sound, but {self.note}'}"


def validate_results(root: Path, files: Iterable[Path] | None = None) -> list[Finding]:
    """Every result file under `root` with something to say about it, by path; sound, current files are
    left out.

    A problem: it is not readable JSON, does not fit the schema, is not in canonical form, or does not lie
    where its protocol, rule, axis values and seed belong. A note: it is sound, but the board leaves it out.

    Args:
        files: look at these only. One that is not a JSON file under `root` is a problem.

    Raises:
        HebbBenchError: a protocol, recipe or rule file of the repository is malformed.
    """
    return findings(gather(root), files)


def findings(sources: Sources, files: Iterable[Path] | None = None) -> list[Finding]:
    """`validate_results` for given protocols, rules and results."""
    reasons = {item.path: item.reason for item in sift(sources).ignored}
    found = {}
    for item in sources.stored:
        if item.problem is not None:
            problem = in_folder(problem_text(item, sources), sources.root.as_posix())
            found[item.path] = Finding(item.path, problem, None)
        elif (reason := reasons.get(sources.place(item.path))) is not None:
            found[item.path] = Finding(item.path, None, f"does not count: {reason}")
    if files is None:
        return [found[path] for path in sorted(found)]
    stored = {item.path.resolve(): item.path for item in sources.stored}
    chosen = []
    for path in sorted(set(files)):
        known = stored.get(path.resolve())
        if known is None:
            lies = "lies outside" if path.is_file() else "is no JSON file under"
            chosen.append(Finding(path, f"{lies} the results folder {sources.root}; name another with --results", None))
        elif known in found:
            chosen.append(found[known])
    return chosen
