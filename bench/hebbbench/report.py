"""Tables for a terminal or a file."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from hebbbench import registry
from hebbbench.cell import Cell
from hebbbench.progress import duration
from hebbbench.protocol import ALIGNMENT, HEADLINES, SGD
from hebbbench.record.schema import NUMERICS_VERSION, Result
from hebbbench.record.store import result_path
from hebbbench.sections import AxisValue
from hebbbench.validation import differences

PROBE = HEADLINES[0]


ELSEWHERE = 120
"""Columns of text that is to fit where there is no terminal, as in a file or a pipe."""


def table(rows: Sequence[Sequence[object]], headers: Sequence[str], fit: bool = False) -> str:
    """Rows under headers; on a terminal the last column wraps to its width.

    Args:
        fit: it does so elsewhere, too, to `ELSEWHERE` columns: for what nobody reads line by line with a program.
    """
    cells = [[str(value) for value in row] for row in rows]
    if cells and (fit or sys.stdout.isatty()):
        columns = shutil.get_terminal_size((ELSEWHERE, 24)).columns
        # Between two columns tabulate leaves two places, and as many behind a header.
        taken = sum(max(len(head) + 2, *(len(row[i]) for row in cells)) + 2 for i, head in enumerate(headers[:-1]))
        for row in cells:
            row[-1] = textwrap.fill(row[-1], max(24, columns - taken), break_on_hyphens=False)
    return tabulate(cells, headers, tablefmt="simple", disable_numparse=True)


def point(axes: Mapping[str, AxisValue]) -> str:
    """Axis values on one line, by name."""
    return " ".join(f"{name}={value}" for name, value in sorted(axes.items()))


def another(old: Result, cell: Cell) -> str | None:
    """Of what else than a cell the earlier result in its place is, in words; None if it is of this very cell.

    The data are left out of account: to compare them they would have to be loaded.
    """
    protocol, versions = cell.protocol, (old.protocol.version, cell.protocol.version)
    if old.protocol.hash != protocol.hash:
        told = versions if versions[0] != versions[1] else (old.protocol.hash[:12], protocol.hash[:12])
        return f"another version of the protocol: {told[0]} → {told[1]}"
    found = []
    if changes := differences(old.recipe.identity(), cell.recipe.identity()):
        shown = ", ".join(f"{where.removeprefix('training.')} {was} → {now}" for where, was, now in changes)
        found.append(f"another recipe: {shown}")
    if old.rule.source_hash != cell.source_hash:
        found.append(f"another version of the rule: {old.rule.source_hash[:12]} → {cell.source_hash[:12]}")
    network = registry.first_architecture_hash(cell.work.architecture.name)
    if (used := old.architecture.source_hash if old.architecture is not None else network) != cell.network_hash:
        found.append(f"another version of the network: {(used or 'unknown')[:12]} → {cell.network_hash[:12]}")
    if old.numerics_version != NUMERICS_VERSION:
        found.append(f"another version of the numerics: {old.numerics_version} → {NUMERICS_VERSION}")
    return "; of ".join(found) or None


def summary(results: Sequence[Result], folder: Path, again: str | None = None, protocol: str | None = None) -> str:
    """What a run measured, where it lies, and what to do next.

    Args:
        folder: of the results; again: the command to give next, if there is one to suggest.
        protocol: that was asked for, by name or path.
    """
    if not results:
        return "Nothing to run."
    first = results[0].protocol
    one = {result.protocol.name for result in results} == {first.name}
    measured = {name for result in results for name in result.metrics}
    suggested = [] if again is None else [again]
    if one and PROBE not in measured and any(name.startswith(ALIGNMENT) for name in measured):
        title, body = _alignments(results)
        where = f"{len(results)} under {folder / first.name}"
    else:
        title, body = "accuracy on the test split, read once", _accuracies(results, one)
        paths = [result_path(folder, r.protocol.name, r.rule.name, r.axes, r.seed) for r in results]
        where = str(paths[0]) if len(paths) == 1 else f"{len(paths)} files under {os.path.commonpath(paths)}"
    named = [] if protocol is None else ["--protocol", protocol]
    suggested.append(shlex.join(["hebbbench", "leaderboard", "--results", str(folder), *named, "--output", "-"]))
    what = f"{first.name} v{first.version}" if one else "several protocols"
    following = "\n        ".join(suggested)
    return f"\n{what}: {title}\n\n{body}\n\nResult: {where}\nNext:   {following}"


def _accuracies(results: Sequence[Result], one: bool) -> str:
    """A line for each cell. `one`: all are of one protocol, which need not be named."""
    rows = [
        (
            result.rule.name,
            *([] if one else [result.protocol.name]),
            f"{point(result.axes)} seed {result.seed}".lstrip(),
            _percent(result, PROBE),
            _percent(result, "end_to_end.test.accuracy"),
            duration(result.cost.train_seconds),
            duration(result.cost.probe_seconds),
            f"{1000 * result.cost.step_seconds:.1f} ms" if result.cost.step_seconds is not None else "–",
            f"{result.cost.peak_memory_bytes / 2**20:.0f} MiB" if result.cost.peak_memory_bytes else "–",
            result.status,
        )
        for result in results
    ]
    costs = ["training", "probing", "a step", "memory"]
    return table(rows, ["rule", *([] if one else ["protocol"]), "cell", "probe", "end to end", *costs, "status"])


def _alignments(results: Sequence[Result]) -> tuple[str, str]:
    """Title and table of a run that measured alignment alone: a line for all seeds of a rule at one point."""
    measured = dict.fromkeys(name for result in results for name in result.metrics if name.startswith(ALIGNMENT))
    kind, ending = ("SGD", SGD) if any(name.endswith(SGD) for name in measured) else ("Hebbian", "")
    layers = [name for name in measured if name.endswith(ending) and name.count(".") == 1 + ending.count(".")]
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.rule.name, point(result.axes)), []).append(result)
    headers = ["rule", "at", *(layer.removeprefix(ALIGNMENT).removesuffix(ending) for layer in layers), "seeds"]
    rows = [(rule, at, *(_mean(own, layer) for layer in layers), len(own)) for (rule, at), own in groups.items()]
    return f"{kind} alignment, mean over seeds", table(rows, headers)


def _mean(results: Sequence[Result], name: str) -> str:
    """Of those that have the metric; if none has, what became of them."""
    values, fates = [], set()
    for result in results:
        metric = result.metrics.get(name)
        if metric is not None and metric.value is not None:
            values.append(metric.value)
        elif metric is not None and metric.reason is not None:
            fates.add(metric.reason.partition(":")[0])
        elif result.status != "ok":
            fates.add(result.status)
    return f"{sum(values) / len(values):+.3f}" if values else ", ".join(sorted(fates)) or "–"


def _percent(result: Result, name: str) -> str:
    metric = result.metrics.get(name)
    return f"{100 * metric.value:.2f} %" if metric is not None and metric.value is not None else "–"
