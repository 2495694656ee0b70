"""One protocol's section of the board: what was asked, the tables, and what a reader must know about them."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hebbbench.board import text
from hebbbench.board.columns import SCORES, shown_columns
from hebbbench.board.facts import commit
from hebbbench.board.overview import overview
from hebbbench.board.rows import BACKPROP, RANDOM, Row, Table
from hebbbench.board.text import plain, sentence
from hebbbench.plan import CellStatus, shortfall
from hebbbench.protocol import Protocol
from hebbbench.record.schema import Result
from hebbbench.record.store import result_path
from hebbbench.sections import Published

RIGHT = frozenset({"tier", "passes", "train s", "read-out s", "memory MiB"})
VISIBLE = 2_000
"""Test samples below which one changes an accuracy by a twentieth of a point or more."""

UNTESTED = "\\* Differs from the best row of its tier by the same amount at every seed: no test is possible."
CONSEQUENCE = {
    BACKPROP: "the gap to it cannot be given",
    RANDOM: "whether a rule learns more than an untrained network cannot be said",
}


def section(protocol: Protocol, tables: Sequence[Table], cells: Sequence[CellStatus], folder: str) -> list[str]:
    """The lines of a protocol's section.

    Args:
        tables: the protocol's tables, one for each combination of axis values.
        cells: the protocol's planned cells.
        folder: of results, as the page names it.
    """
    lines = [f"## {protocol.name}", "", f"**{plain(protocol.title)}.** {sentence(protocol.description)}", ""]
    lines += [work(protocol, tables), "", *overview(protocol, tables)]
    measured = [table for table in tables if table.rows]
    for table in measured:
        if table.axes:
            lines += [f"### {protocol.name}: {text.axes_text(table.axes)}", ""]
        lines += [*_table(table, folder), ""]
    if len(measured) < len(tables):
        lines += [without_results(tables), ""]
    for remark in remarks(protocol, tables):
        lines += [*_markdown(remark), ""]
    missing = missing_runs(cells, folder)
    return [*lines, *missing, ""] if missing else lines


class Remark(NamedTuple):
    """Something to be said below the tables; the lines are plain text, with names between backticks."""

    heading: str
    aside: str
    lines: list[str]


def remarks(protocol: Protocol, tables: Sequence[Table]) -> list[Remark]:
    """Who measured, what is not there and why, and what others printed."""
    # A rule for which an axis does not vary stands in the tables of all its values.
    each: dict[tuple[str, ...], Row] = {}
    for row in (row for table in tables for row in table.rows):
        each.setdefault(tuple(result.cell for result in row.results), row)
    rows = list(each.values())
    found = [
        Remark("", "", measured_by([result for row in rows for result in row.results])),
        Remark("Controls missing", "", _controls(tables)),
        Remark("Runs without a score", "", _unfinished(protocol, rows)),
        Remark("Published numbers", " (not measured here, never ranked)", _published(protocol)),
    ]
    return [remark for remark in found if remark.lines]


def _markdown(remark: Remark) -> list[str]:
    if not remark.heading:
        return [plain(line) for line in remark.lines]
    return [f"**{remark.heading}**{remark.aside}", "", *(f"- {plain(line)}" for line in remark.lines)]


def work(protocol: Protocol, tables: Sequence[Table]) -> str:
    """Which work was done, and how it was scored, in Markdown."""
    seeds = ", ".join(str(seed) for seed in sorted(protocol.seeds))
    epochs = text.count(protocol.budget.epochs, "epoch")
    guessing = "" if protocol.chance is None else f" Guessing scores {text.percent(protocol.chance)} %."
    return (
        f"Protocol version {protocol.version}, hash `{protocol.hash[:12]}`. Scored by the test accuracy of "
        f"{SCORES[protocol.headline][1]}{_on_samples(tables)}. Seeds {seeds}. At most {epochs}.{guessing}"
    )


def _on_samples(tables: Sequence[Table]) -> str:
    """How many test samples there were, and what one is worth, where that can be seen in the numbers."""
    results = (result for table in tables for row in table.rows for result in row.results)
    count = next((result.data.samples.test for result in results), None)
    if count is None:
        return ""
    worth = f", one of which is {text.percent(1 / count)} points" if count < VISIBLE else ""
    return f", on {count} test samples{worth}"


def without_results(tables: Sequence[Table]) -> str:
    """One line for all tables that are empty: a protocol with axes may have dozens."""
    empty = [table for table in tables if not table.rows]
    if len(empty) == len(tables):
        axes = "; ".join(f"{name} {', '.join(map(str, axis.values))}" for name, axis in tables[0].protocol.axes.items())
        return f"No results yet, at {axes}." if axes else "No results yet."
    return f"No results yet at {'; '.join(text.axes_text(table.axes) for table in empty)}."


def _table(table: Table, folder: str) -> list[str]:
    shown = shown_columns(table, left_out=("over_random",))
    rows = []
    for row in table.rows:
        place = f"{place_of(row, folder)}/"
        cells = {column.key: plain(column.cell(row)) for column in shown}
        cells |= {"tier": cells["tier"].replace("*", "\\*"), "rule": text.link(row.rule, place)}
        rows.append(list(cells.values()))
    lines = text.pipe_table([column.head for column in shown], rows, RIGHT)
    if any(row.tier is not None and not row.tier.tested for row in table.rows):
        lines += ["", UNTESTED]
    if any(row.ranked for row in table.rows) and not any(row.tier for row in table.rows):
        lines += ["", "One seed gives no tiers and no intervals."]
    return lines


def place_of(row: Row, folder: str) -> str:
    """The folder of a row's results."""
    return result_path(Path(folder), row.protocol, row.rule, row.axes, 0).parent.as_posix()


def measured_by(results: Sequence[Result]) -> list[str]:
    """Which code measured on which machine, and who vouches for it."""
    if not results:
        return []
    commits = sorted({f"`{commit(result.environment)}`" for result in results})
    by_device: defaultdict[str, set[str]] = defaultdict(set)
    for result in results:
        environment = result.environment
        by_device[environment.device_name or environment.device or "an unknown device"].add(result.rule.name)
    devices = [
        f"{device} ({', '.join(sorted(rules))})" if len(by_device) > 1 else device
        for device, rules in sorted(by_device.items())
    ]
    caution = " Times and memory compare only on one device." if len(devices) > 1 else ""
    levels = Counter(result.verification for result in results)
    vouched = ", ".join(f"{number} {level}" for level, number in sorted(levels.items()))
    plural = "s" if len(commits) > 1 else ""
    return [
        f"Measured at commit{plural} {', '.join(commits)}, on {'; '.join(devices)}.{caution} "
        f"Verification of the results: {vouched}."
    ]


def _controls(tables: Sequence[Table]) -> list[str]:
    """The controls without an accuracy in tables that have results, and what cannot be said without them."""
    lines = []
    for table in (table for table in tables if table.rows):
        for control in sorted(table.protocol.controls):
            row = table.row(control)
            if row is None or row.accuracy is None:
                where = f" at {text.axes_text(table.axes)}" if table.axes else ""
                meaning = CONSEQUENCE.get(control, "the comparison it is there for cannot be made")
                lines.append(f"`{control}` has no accuracy{where}: {meaning}.")
    return lines


def _unfinished(protocol: Protocol, rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in rows:
        where = f" at {text.axes_text(row.axes)}" if row.axes else ""
        for result in row.results:
            reason = shortfall(result, protocol)
            if reason is not None:
                lines.append(f"`{row.rule}`{where}, seed {result.seed}: {reason.rstrip('.')}.")
    return lines


def _published(protocol: Protocol) -> list[str]:
    lines = []
    for entry in sorted(protocol.published, key=lambda e: (e.rule, _position(protocol, e), -e.value, e.source)):
        where = f" at {text.axes_text(entry.axes)}" if entry.axes else ""
        source = f"{entry.source}; {entry.note}" if entry.note else entry.source
        lines.append(f"`{entry.rule}`{where}: {printed(entry)} ({entry.metric}), {source.rstrip('.')}.")
    return lines


def printed(entry: Published) -> str:
    """A printed number: an accuracy in percent, anything else, such as a Gini coefficient, as it is."""
    scale, unit = (100, " %") if "accuracy" in entry.metric else (1, "")
    sd = f" ± {scale * entry.sd:.2f}" if entry.sd is not None else ""
    return f"{scale * entry.value:.2f}{sd}{unit}"


def _position(protocol: Protocol, entry: Published) -> tuple[int, ...]:
    """Where the entry stands in the protocol's own order of axis values; what belongs to no value comes first."""
    return tuple(
        axis.values.index(entry.axes[name]) if name in entry.axes else -1 for name, axis in protocol.axes.items()
    )


def missing_runs(cells: Sequence[CellStatus], folder: str) -> list[str]:
    """The planned cells without a result that counts, with the commands that run them into the folder of results.

    Where the same seeds of a rule are missing at every combination of axis values, one command names none of them.
    """
    missing = [cell for cell in cells if cell.state == "missing"]
    if not missing:
        return []
    points = {text.axes_text(cell.axes) for cell in cells}
    seeds: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for cell in missing:
        axes = "".join(f" --axis {shlex.quote(f'{name}={value}')}" for name, value in cell.axes.items())
        seeds[shlex.quote(cell.rule if cell.known else f"path/to/{cell.rule}.py"), axes].append(cell.seed)
    alike: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for (rule, axes), own in seeds.items():
        alike[rule, "".join(f" --seed {span}" for span in text.spans(own))].append(axes)
    start = f"hebbbench run --protocol {shlex.quote(missing[0].given)}"
    commands = [
        f"{start} --rule {rule}{axes}{spans} --results {shlex.quote(folder)}"
        for (rule, spans), places in alike.items()
        for axes in ([""] if len(places) == len(points) else places)
    ]
    summary = f"{len(missing)} of {text.count(len(cells), 'planned run')} missing: the commands"
    return [
        f"<details><summary>{summary}</summary>",
        "",
        "```sh",
        *sorted(commands),
        "```",
        "",
        "</details>",
    ]
