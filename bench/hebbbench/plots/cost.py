"""Accuracy against what it cost: time, steps, samples or memory."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from hebbbench.errors import ResultError
from hebbbench.plots.collection import Found
from hebbbench.plots.names import COSTS, quantity
from hebbbench.plots.series import Panel, check_metric, left_out, metric_line, panels_of, titles, value_of
from hebbbench.plots.sheet import Legend, add_legend, label_outer, lay_out, panels
from hebbbench.plots.style import handle, look
from hebbbench.record.schema import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Mark(NamedTuple):
    """One rule: the median cost, least and most, and the metric's mean and standard deviation."""

    cost: float
    least: float
    most: float
    mean: float
    sd: float


def draw(found: Found, x: str, metric: str) -> Figure:
    """A panel for each protocol and combination of axis values, in it a mark for each rule.

    Seeds differ in what they cost, too: the mark stands at the median, with a bar from the least to the most.

    Raises:
        ResultError: no result of a protocol has the metric, or none has that cost.
    """
    check_metric(found, metric)
    shown = panels_of(found)
    marks = [{rule: made for rule in _rules(panel) if (made := _mark(panel, rule, x, metric))} for panel in shown]
    for panel, some in zip(shown, marks, strict=True):
        if not some:
            raise ResultError(f"no result of '{panel.protocol}' has both {metric} and {x}. Choose another --x.")
    order = {rule: index for index, rule in enumerate(sorted({rule for some in marks for rule in some}))}
    legend = Legend(list(order), left_out(found, lambda result: value_of(result, metric) is not None, "value"))
    figure, axes = panels(titles(shown), legend, 2.5)
    scale = quantity(metric).scale
    for axis, some in zip(axes, marks, strict=True):
        for rule, mark in some.items():
            axis.errorbar(
                [mark.cost],
                [scale * mark.mean],
                yerr=[scale * mark.sd],
                xerr=[[mark.cost - mark.least], [mark.most - mark.cost]],
                label=rule,
                capsize=1.5,
                elinewidth=0.7,
                **{**look(order[rule]), "linestyle": "none"},
            )
    lay_out(axes[0], [mark.cost for some in marks for mark in some.values()], ticked=False)
    label_outer(axes, COSTS[x][0], quantity(metric).label(found.losses))
    add_legend(figure, [handle(index, linestyle="none") for index in order.values()], legend)
    return figure


def _rules(panel: Panel) -> list[str]:
    return sorted({result.rule.name for result in panel.results})


def _mark(panel: Panel, rule: str, x: str, metric: str) -> Mark | None:
    own = [result for result in panel.results if result.rule.name == rule and value_of(result, metric) is not None]
    costs = [cost for result in own if (cost := _cost(result, x)) is not None]
    line = metric_line(rule, own, lambda _: 0.0, metric)
    if line is None or not costs:
        return None
    return Mark(median(costs), min(costs), max(costs), line.mean[0], line.sd[0])


def _cost(result: Result, x: str) -> float | None:
    value = getattr(result.cost, x)
    return None if value is None else COSTS[x][1] * float(value)
