"""The board: a pure function of the results. No number on it is typed by hand or exists nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hebbbench.board.content import Board, collect
from hebbbench.board.current import sift
from hebbbench.board.output import belongs, check, read, rendered, seen_from, write
from hebbbench.board.rows import Row, tables
from hebbbench.board.validate import Finding, validate_results
from hebbbench.errors import unknown_name
from hebbbench.plan import Sources, gather

__all__ = [
    "Board",
    "Finding",
    "Row",
    "belongs",
    "build",
    "check",
    "collect",
    "on_screen",
    "render",
    "sift",
    "top_rows",
    "validate_results",
    "write",
]


def render(sources: Sources, folder: str = "results") -> str:
    """The text of LEADERBOARD.md for these protocols, rules and results.

    Args:
        folder: of results, as the page names it.
    """
    return rendered(collect(sources, folder))


def build(results: Path, protocols: Sequence[str] = ()) -> str:
    """The text of LEADERBOARD.md for the results folder, with the registry's protocols and rules; paths are seen from
    the working directory.

    Args:
        protocols: these alone, by name or by path; all of the registry's if none is named.

    Raises:
        HebbBenchError: a protocol, recipe or rule file of the repository is malformed.
    """
    return render(read(results, protocols), seen_from(results, Path()))


def on_screen(results: Path, protocols: Sequence[str] = ()) -> str:
    """The same for a person at a terminal: narrow tables, and nothing that a reader of the page has to be told."""
    from hebbbench.board.terminal import screen

    return screen(collect(read(results, protocols), seen_from(results, Path())))


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
