"""The board in a line a table: the best rule, backprop, random features, and how much has been run."""

from __future__ import annotations

from typing import NamedTuple

from hebbbench.board import text
from hebbbench.board.content import Board
from hebbbench.board.rows import BACKPROP, RANDOM, Row, Table
from hebbbench.board.text import NOTHING, percent
from hebbbench.plan import tally

ACCURACIES = ("its accuracy %", "bp %", "random %")
HEADER = ("protocol", "epochs, at most", "best rule beside the controls", *ACCURACIES, "runs done")
RIGHT = frozenset({"epochs, at most", *ACCURACIES})


class Line(NamedTuple):
    """One line: `protocol` and `where` are its first cell, `cells` the others; `empty` if nothing was measured."""

    protocol: str
    where: str
    cells: tuple[str, ...]
    empty: bool


def summary(board: Board) -> list[Line]:
    """A line for each table that has results; a protocol's tables without any share one."""
    lines = []
    for table, members in _grouped(board.tables):
        axes = [member.axes for member in members]
        where = f": {text.axes_text(table.axes)}" if table.axes and len(members) == 1 else ""
        where = f": {len(members)} tables" if len(members) > 1 else where
        top = best(table)
        counted = tally(cell for cell in board.cells_of(table.protocol) if cell.axes in axes)
        cells = (
            str(table.protocol.budget.epochs),
            top.rule if top else NOTHING,
            _mean(top),
            _mean(table.row(BACKPROP)),
            _mean(table.row(RANDOM)),
            f"{counted.done}/{counted.planned}" + (f", {counted.failed} failed" if counted.failed else ""),
        )
        lines.append(Line(table.protocol.name, where, cells, empty=not table.rows))
    return lines


def best(table: Table) -> Row | None:
    """The ranked row of highest accuracy that is no control."""
    return next((row for row in table.rows if row.ranked and row.rule not in table.protocol.controls), None)


def _grouped(tables: tuple[Table, ...]) -> list[tuple[Table, list[Table]]]:
    """Each table that has results, alone; a protocol's tables without any share one line."""
    lines: list[tuple[Table, list[Table]]] = []
    empty: dict[str, list[Table]] = {}
    for table in tables:
        if table.rows:
            lines.append((table, [table]))
        elif table.protocol.name in empty:
            empty[table.protocol.name].append(table)
        else:
            empty[table.protocol.name] = [table]
            lines.append((table, empty[table.protocol.name]))
    return lines


def _mean(row: Row | None) -> str:
    """A row's mean accuracy, with the number of seeds if they are not all there."""
    if row is None or row.accuracy is None:
        return NOTHING
    partial = "" if row.ranked else f" ({row.accuracy.n} of the seeds)"
    return percent(row.accuracy.mean) + partial
