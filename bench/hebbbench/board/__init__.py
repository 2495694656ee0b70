"""The board: a pure function of the results. No number on it is typed by hand or exists nowhere else."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from hebbbench.board.alignment import alignment_section
from hebbbench.board.current import sift
from hebbbench.board.markdown import page
from hebbbench.board.readme import readme_beside, refresh, stale, top
from hebbbench.board.rows import Row, tables
from hebbbench.board.validate import Finding, validate_results
from hebbbench.errors import unknown_name
from hebbbench.files import write_atomic
from hebbbench.plan import Sources, gather, narrowed, plan

__all__ = [
    "Finding",
    "Row",
    "build",
    "check",
    "readme_beside",
    "render",
    "sift",
    "top_rows",
    "validate_results",
    "write",
]

SHOWN_DIFFERENCES = 40


def render(sources: Sources) -> str:
    """The text of LEADERBOARD.md for these protocols, rules and results."""
    sifted = sift(sources)
    cells = plan(sources, sifted)
    sections = {
        name: alignment_section(
            protocol,
            sources,
            [result for result in sifted.current if result.protocol.name == name],
            [cell for cell in cells if cell.protocol == name],
        )
        for name, protocol in sources.protocols.items()
        if not protocol.scores_accuracy
    }
    return page(tables(sources, sifted), cells, sifted.ignored, sections)


def build(results: Path, protocols: Sequence[str] = ()) -> str:
    """The text of LEADERBOARD.md for the results folder, with the registry's protocols and rules.

    Args:
        protocols: these alone, by name or by path; all of the registry's if none is named.

    Raises:
        HebbBenchError: a protocol, recipe or rule file of the repository is malformed.
    """
    sources = gather(results)
    return render(narrowed(sources, protocols) if protocols else sources)


def write(results: Path, path: Path, readme: Path | None = None) -> None:
    """Write the board to `path`, and its top rows between the markers of `readme`, each whole or not at all.

    Raises:
        HebbBenchError: as `build`, or a file cannot be written.
    """
    sources = gather(results)
    write_atomic(path, render(sources).encode(), "--output")
    if readme is not None:
        refresh(readme, top(sources))


def check(results: Path, path: Path, readme: Path | None = None) -> str | None:
    """None if the files are what the results say, else a message with the first lines that differ."""
    command = f"hebbbench leaderboard --results {results} --output {path}"
    sources = gather(results)
    if readme is not None and stale(readme, top(sources)):
        return f"{readme} does not show the board's top rows. Write them anew with: {command}"
    if not path.is_file():
        return f"{path} does not exist. Write it with: {command}"
    expected, actual = render(sources), path.read_bytes().decode(errors="replace")
    if actual == expected:
        return None
    difference = list(
        difflib.unified_diff(
            actual.split("\n"), expected.split("\n"), str(path), "what results/ says", lineterm="", n=0
        )
    )
    shown = difference[:SHOWN_DIFFERENCES]
    more = [f"… and {len(difference) - len(shown)} more lines"] if len(difference) > len(shown) else []
    head = f"{path} is not what the results say. Write it anew with: {command}"
    return "\n".join([head, *shown, *more])


def top_rows(results: Path, protocol: str, n: int) -> list[Row]:
    """The first n ranked rows of a protocol; with axes, the first n at each combination of their values.

    Raises:
        UnknownNameError: there is no protocol of that name.
    """
    sources = gather(results)
    if protocol not in sources.protocols:
        raise unknown_name("protocol", protocol, sources.protocols)
    own = [table for table in tables(sources, sift(sources)) if table.protocol.name == protocol]
    return [row for table in own for row in [row for row in table.rows if row.ranked][:n]]
