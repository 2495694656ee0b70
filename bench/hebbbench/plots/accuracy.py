"""Accuracy against an axis of the protocol (width, depth, …) or against what it cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING

from hebbbench.errors import ResultError, suggestion
from hebbbench.plots.series import Line, metric_line, points_of, without_metric
from hebbbench.plots.style import COLUMN, lay_out, look
from hebbbench.protocol import Protocol
from hebbbench.record.schema import Cost, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS = {
    "train_seconds": "training, s",
    "wall_seconds": "whole run, s",
    "steps": "steps",
    "samples_seen": "samples seen",
    "peak_memory_bytes": "peak memory, bytes",
}
UNITS = {"width": "hidden units", "depth": "layers"}
NEAR = 4
"""Chance is drawn if an accuracy is below this many times it; else it would only press the lines together."""
ENTRY = 0.17
"""Inches that a line of the legend takes, so that many rules leave the picture its height."""
LONG_NAME = 14
"""Letters of a rule's name from which on a column holds two entries of the legend, not three."""


def draw(results: Sequence[Result], x: str, metric: str, protocol: Protocol | None, published: bool) -> Figure:
    """One line a rule, mean ± one standard deviation over seeds; published numbers as hollow marks.

    Against a cost, seeds differ in x too: each combination of axis values is one mark at the median cost, with a bar
    from the least to the most.

    Args:
        x: an axis of the results, or a field of their cost.
        metric: a fraction, drawn in percent.
        protocol: for the level of chance and for what was published; None leaves both out.
        published: whether to show the published numbers; x must then be an axis.

    Raises:
        ResultError: the results have neither such an axis nor such a cost, or no such metric.
    """
    from matplotlib import pyplot

    place = _place(results, x)
    figure: Figure
    rules = sorted({result.rule.name for result in results})
    abreast = 3 if max(map(len, rules)) <= LONG_NAME else 2
    entries = -(-(len(rules) + published) // abreast)
    figure, axis = pyplot.subplots(figsize=(COLUMN, 2.45 + ENTRY * entries))
    seen: list[float] = []
    lowest = 1.0
    for index, rule in enumerate(rules):
        own = [result for result in results if result.rule.name == rule]
        line, sideways = _line(rule, own, x, place, metric)
        if line is None:
            continue
        seen += line.x
        lowest = min(lowest, *line.mean)
        axis.errorbar(
            line.x,
            [100 * value for value in line.mean],
            yerr=[100 * value for value in line.sd],
            xerr=sideways,
            label=rule,
            capsize=2,
            elinewidth=0.8,
            **look(index),
        )
        if published and protocol is not None:
            printed = sorted((e.axes[x], e.value) for e in protocol.published if e.rule == rule and x in e.axes)
            if printed:
                axis.plot(
                    [float(at) for at, _ in printed],
                    [100 * value for _, value in printed],
                    **{**look(index), "linestyle": ":", "linewidth": 0.7, "markerfacecolor": "none"},
                )
    if not seen:
        raise without_metric(results, metric)
    lay_out(axis, seen, ticked=x not in COSTS)
    if protocol is not None and protocol.chance is not None and lowest < NEAR * protocol.chance:
        axis.axhline(100 * protocol.chance, color="0.6", linewidth=0.6)
        axis.annotate("chance", (1, 100 * protocol.chance), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    axis.set_xlabel(COSTS.get(x, UNITS.get(x, x)))
    axis.set_ylabel(f"{metric.replace('.', ' ')}, %" if metric.count(".") > 2 else "test accuracy, %")
    if published:
        axis.plot([], [], color="0.3", marker="o", markerfacecolor="none", linestyle=":", label="published")
    figure.legend(loc="outside lower center", ncols=abreast)
    return figure


def _line(
    rule: str, results: Sequence[Result], x: str, place: Callable[[Result], float | None], metric: str
) -> tuple[Line | None, tuple[Sequence[float], Sequence[float]] | None]:
    """A rule's line, and how far its costs reach to the left and right where x is one."""
    if x not in COSTS:
        return metric_line(rule, results, place, metric), None
    marks = []
    for point in points_of(results):
        own = [r for r in results if r.axes == point and r.status == "ok"]
        costs = [value for r in own if (value := place(r)) is not None]
        line = metric_line(rule, own, lambda _: 0.0, metric)
        if costs and line is not None:
            middle = median(costs)
            marks.append((middle, line.mean[0], line.sd[0], middle - min(costs), max(costs) - middle))
    if not marks:
        return None, None
    xs, means, sds, less, more = zip(*sorted(marks), strict=True)
    return Line(rule, xs, means, sds, len(results)), (less, more)


def _place(results: Sequence[Result], x: str) -> Callable[[Result], float | None]:
    axes = sorted({name for result in results for name in result.axes})
    if x in Cost.model_fields and x in COSTS:

        def cost(result: Result) -> float | None:
            value = getattr(result.cost, x)
            return None if value is None else float(value)

        return cost
    if x not in axes:
        raise ResultError(f"the results have neither an axis nor a cost '{x}'. {suggestion(x, [*axes, *COSTS])}")

    def value(result: Result) -> float | None:
        found = result.axes.get(x)
        return float(found) if isinstance(found, int | float) else None

    return value
