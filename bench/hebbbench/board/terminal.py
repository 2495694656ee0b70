"""The board for a person at a terminal: narrow tables without the legend and the lists that the page is for."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from hebbbench import registry
from hebbbench.board import text
from hebbbench.board.alignment import Alignments, asked, matrix
from hebbbench.board.columns import SCORES, notes, tier_spans, tier_text
from hebbbench.board.content import Board
from hebbbench.board.rows import Table
from hebbbench.board.statistics import Difference
from hebbbench.board.text import NOTHING
from hebbbench.plan import tally
from hebbbench.protocol import Protocol
from hebbbench.report import table as as_text

LEGEND = (
    "Rows of one tier cannot be told apart. Accuracy: mean ± standard deviation (seeds). Gaps, paired by seed, in\n"
    "points: mean ± half the 95 % interval."
)


def screen(board: Board) -> str:
    """Every table that has results, what is missing in a line, and where to read the rest."""
    parts = []
    for tables in board.by_protocol().values():
        measured = [table for table in tables if table.rows]
        if measured:
            parts += [_title(measured[0].protocol), *(_table(table) for table in measured)]
            parts += _missing(measured[0].protocol, board)
    parts += [LEGEND] if parts else []
    for measured_there in board.alignments:
        if measured_there.rows:
            parts += [_aligned(measured_there), *_missing(measured_there.protocol, board)]
    if not parts:
        parts.append(f"No result under {board.folder}/ counts for these protocols.")
    if board.ignored:
        files = text.count(len(board.ignored), "file")
        parts.append(f"{files} under {board.folder}/ left out: hebbbench validate {_results(board)}")
    return "\n\n".join(parts) + "\n"


def _title(protocol: Protocol) -> str:
    guessing = "" if protocol.chance is None else f"; guessing scores {text.percent(protocol.chance)} %"
    scored = SCORES[protocol.headline][1]
    return f"{protocol.name} v{protocol.version}: {protocol.title}\nTest accuracy of {scored}{guessing}"


def _table(table: Table) -> str:
    spans = tier_spans(table.rows)
    rows = [
        [
            tier_text(row, spans.get(row.rule)),
            row.rule,
            text.spread(row.accuracy),
            _gap(row.gap),
            _gap(row.over_random),
            ", ".join(notes(row)),
        ]
        for row in table.rows
    ]
    title = f"{text.axes_text(table.axes)}\n\n" if table.axes else ""
    header = ["tier", "rule", SCORES[table.protocol.headline][0], "gap to bp", "gap to random", "notes"]
    return title + as_text(rows, header)


def _gap(difference: Difference | None) -> str:
    """The mean difference and half its interval, in points."""
    if difference is None:
        return NOTHING
    if difference.low is None or difference.high is None:
        return text.points(difference.mean)
    return f"{text.points(difference.mean)} ± {text.percent((difference.high - difference.low) / 2)}"


def _aligned(measured: Alignments) -> str:
    protocol = measured.protocol
    header, lines = matrix(measured)
    rows = [[line.rule + ", published" * line.published, *line.outer, *line.cells] for line in lines]
    what = asked(protocol).replace("`", "").replace("*", "")
    return f"{protocol.name} v{protocol.version}: {protocol.title}\n{what}\n\n{as_text(rows, header)}"


def _missing(protocol: Protocol, board: Board) -> Sequence[str]:
    """How many planned runs are missing, with the command that takes them up."""
    counted = tally(board.cells_of(protocol))
    if not counted.missing:
        return []
    known = protocol.name in registry.protocol_names()
    command = f"hebbbench run --missing --protocol {shlex.quote(protocol.name)} {_results(board)}"
    return [f"{counted.missing} of {counted.planned} planned runs missing{f': {command}' if known else ''}"]


def _results(board: Board) -> str:
    return f"--results {shlex.quote(board.folder)}"
