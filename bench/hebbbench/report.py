"""Tables for a terminal or a file."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from hebbbench.progress import duration
from hebbbench.protocol import ALIGNMENT, HEADLINES, SGD
from hebbbench.record.schema import Result
from hebbbench.record.store import result_path
from hebbbench.sections import AxisValue

PROBE = HEADLINES[0]


def table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    """Rows under headers; on a terminal the last column wraps to its width."""
    wrap: list[int | None] | None = None
    if sys.stdout.isatty() and rows:
        columns = shutil.get_terminal_size().columns
        widths = [max(len(str(row[i])) for row in (*rows, headers)) for i in range(len(headers))]
        wrap = [None] * (len(headers) - 1) + [max(24, columns - sum(widths[:-1]) - 2 * len(headers))]
    return tabulate(
        [[str(value) for value in row] for row in rows],
        headers,
        tablefmt="simple",
        disable_numparse=True,
        maxcolwidths=wrap,
    )


def point(axes: Mapping[str, AxisValue]) -> str:
    """Axis values on one line, by name."""
    return " ".join(f"{name}={value}" for name, value in sorted(axes.items()))


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
        where, suggested = f"{len(results)} under {folder / first.name}", []
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
