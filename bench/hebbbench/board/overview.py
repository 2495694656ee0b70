"""A protocol with one axis at a glance: rules down, axis values across. The full tables follow it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from statistics import fmean

from hebbbench.board import text
from hebbbench.board.rows import Row, Table
from hebbbench.board.text import NOTHING, percent, plain
from hebbbench.protocol import Protocol
from hebbbench.record.schema import DIAGNOSTICS, PUBLISHED_EPOCH, PUBLISHED_READOUT
from hebbbench.sections import Published

GINI = f"{DIAGNOSTICS}gini.*"
PRINTED_GINI = ("Gini coefficient, start", "Gini coefficient, end")
"""What a protocol calls the two among its published numbers."""


def overview(protocol: Protocol, tables: Sequence[Table]) -> list[str]:
    """The lines: accuracy, and where they were measured a paper's own scores and the Gini coefficient of updates.

    Nothing for a protocol without results, or with another number of axes than one.
    """
    rules = _rules(tables)
    if len(protocol.axes) != 1 or len(tables) < 2 or not rules:
        return []
    (axis,) = protocol.axes
    printed = any(row.published for table in tables for row in table.rows)
    beside = ", in brackets the published number" if printed else ""
    lines = [f"**Accuracy % by {axis}** (mean ± standard deviation (seeds){beside})", ""]
    lines += _matrix(axis, rules, tables, _accuracy)
    scores = ((READOUT, PUBLISHED_READOUT), (EPOCH, PUBLISHED_EPOCH))
    more = [(heading, partial(_as_published, protocol, metric)) for heading, metric in scores]
    for heading, cell in (*more, (UPDATES, partial(_gini, protocol))):
        if any(cell(row) != NOTHING for table in tables for row in table.rows):
            lines += ["", heading, "", *_matrix(axis, rules, tables, cell)]
    return [*lines, ""]


READOUT = (
    "**The paper's own read-out**, best test accuracy over its epochs, % (mean; chosen with the test split in hand, "
    "so never ranked; published number in brackets)"
)
EPOCH = (
    "**The best test epoch** of the network's own output, % (mean; chosen with the test split in hand, so never "
    "ranked; published number in brackets)"
)
UPDATES = (
    "**Gini coefficient of the units' mean step size**, after the first step → at the end (mean; 0: all units move "
    "alike, near 1: one alone; published numbers in brackets)"
)


def _rules(tables: Sequence[Table]) -> list[str]:
    """Rules with a result, by their mean accuracy over the tables they stand in, best first."""
    values: dict[str, list[float]] = {}
    for row in (row for table in tables for row in table.rows):
        values.setdefault(row.rule, []).append(row.accuracy.mean if row.accuracy is not None else 0.0)
    return sorted(values, key=lambda rule: (-fmean(values[rule]), rule))


def _matrix(axis: str, rules: Sequence[str], tables: Sequence[Table], cell: Callable[[Row], str]) -> list[str]:
    """One row a rule that has something to show, one column a table."""
    header = ["rule", *(plain(f"{axis} {table.axes[axis]}") for table in tables)]
    rows = []
    for rule in rules:
        found = [table.row(rule) for table in tables]
        cells = [NOTHING if row is None else cell(row) for row in found]
        if any(shown != NOTHING for shown in cells):
            rows.append([plain(rule), *cells])
    return text.pipe_table(header, rows, frozenset(header[1:]))


def _accuracy(row: Row) -> str:
    return _beside(text.spread(row.accuracy), row.published)


def _as_published(protocol: Protocol, metric: str, row: Row) -> str:
    """With whatever was printed of it: a paper's own way to score is what such a metric repeats."""
    values = _metric(row, metric)
    printed = [entry for entry in _printed(protocol, row) if entry.metric not in PRINTED_GINI]
    return _beside(percent(fmean(values)), printed) if values else NOTHING


def _printed(protocol: Protocol, row: Row) -> list[Published]:
    """What was printed of the rule at these axis values, by whatever metric."""
    return [entry for entry in protocol.published if entry.rule == row.rule and entry.axes == row.axes]


def _beside(shown: str, published: Sequence[Published]) -> str:
    printed = ", ".join(percent(entry.value) for entry in published)
    return f"{shown} [{printed}]" if printed and shown != NOTHING else shown


def _gini(protocol: Protocol, row: Row) -> str:
    """With the published pair, where both were printed."""
    start, end = _metric(row, f"{GINI}.start"), _metric(row, f"{GINI}.end")
    if not (start and end):
        return NOTHING
    shown = _course(fmean(start), fmean(end))
    found = {entry.metric: entry.value for entry in _printed(protocol, row)}
    if not found.keys() >= set(PRINTED_GINI):
        return shown
    return f"{shown} [{_course(*(found[metric] for metric in PRINTED_GINI))}]"


def _course(start: float, end: float) -> str:
    return f"{start:.2f} → {end:.2f}"


def _metric(row: Row, pattern: str) -> list[float]:
    """The values of the metrics that fit, of all finished seeds and layers."""
    return [
        metric.value
        for result in row.results
        if result.status == "ok"
        for name, metric in result.metrics.items()
        if fnmatchcase(name, pattern) and metric.value is not None
    ]
