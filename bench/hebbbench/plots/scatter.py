"""One metric against another, such as loss against alignment: a mark for each rule at each axis point."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from hebbbench.errors import ResultError
from hebbbench.plots.collection import Found
from hebbbench.plots.lines import heading
from hebbbench.plots.names import point_text, quantity
from hebbbench.plots.series import Panel, check_metric, left_out, panels_of, points_of, titles, value_of, varying
from hebbbench.plots.sheet import Legend, add_legend, far_apart, label_outer, panels
from hebbbench.plots.style import COLOURS, handle, look
from hebbbench.record.schema import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Mark(NamedTuple):
    """The means of both metrics over the seeds that have both, and how many these are."""

    x: float
    y: float
    seeds: int


def draw(found: Found, x: str, y: str) -> Figure:
    """A panel for each protocol. Colours tell rules apart, or where there is one rule the values of an axis.

    Args:
        x, y: names of metrics.

    Raises:
        ResultError: they are one, or no result of a protocol has both.
    """
    if x == y:
        raise ResultError(f"--x {x} is what stands upwards, too. Choose another metric for one of them.")
    for metric in (x, y):
        check_metric(found, metric)
    across, up = quantity(x), quantity(y)
    shown = panels_of(found, free=lambda protocol: varying(found.of(protocol)))
    marks = [_marks(panel, x, y) for panel in shown]
    for panel, some in zip(shown, marks, strict=True):
        if not some:
            raise ResultError(f"no result of '{panel.protocol}' has both {x} and {y}. Choose another --x or --metric.")
    order = {label: index for index, label in enumerate(dict.fromkeys(label for some in marks for label in some))}
    above, labels = heading(list(order))
    notes = left_out(found, lambda r: value_of(r, x) is not None and value_of(r, y) is not None, "pair of values")
    most = max(mark.seeds for some in marks for own in some.values() for mark in own)
    notes += [f"Means of {most} seeds."] if most > 1 else []
    told_apart = len(order) > 1
    legend = Legend(labels if told_apart else [], notes + above)
    figure, axes = panels(titles(shown), legend, 2.5)
    heights = [mark.y for some in marks for own in some.values() for mark in own]
    logarithmic = not (up.is_accuracy or up.is_signed) and far_apart(min(heights), max(heights))  # panels share it
    for axis, some in zip(axes, marks, strict=True):
        if across.is_signed:
            axis.axvline(0, color="0.6", linewidth=0.6)
        for label, own in some.items():
            at = ([across.scale * mark.x for mark in own], [up.scale * mark.y for mark in own])
            axis.plot(*at, **{**look(order[label]), "linestyle": "none"}, label=label)
        if logarithmic:
            axis.set_yscale("log")
    label_outer(axes, across.label(found.losses), up.label(found.losses))
    add_legend(figure, [handle(i, linestyle="none") for i in order.values()] if told_apart else [], legend)
    return figure


def _marks(panel: Panel, x: str, y: str) -> dict[str, list[Mark]]:
    """Label → the marks of its rule, or of its value of the axis that is told apart."""
    rules = sorted({result.rule.name for result in panel.results})
    apart = None if len(rules) > 1 else _axis(panel.results)
    marks: dict[str, list[Mark]] = {}
    for rule in rules:
        own = [result for result in panel.results if result.rule.name == rule]
        for point in points_of(own):
            pairs = [
                (a, b)
                for result in own
                if result.axes == point
                and (a := value_of(result, x)) is not None
                and (b := value_of(result, y)) is not None
            ]
            if pairs:
                label = rule if apart is None else point_text({apart: point[apart]})
                mark = Mark(fmean(a for a, _ in pairs), fmean(b for _, b in pairs), len(pairs))
                marks.setdefault(label, []).append(mark)
    return marks


def _axis(results: Sequence[Result]) -> str | None:
    """The axis with the most values that colours can still tell apart."""
    counts = {name: len({result.axes[name] for result in results}) for name in varying(results)}
    few = {name: count for name, count in counts.items() if count <= len(COLOURS)}
    return max(few, key=lambda name: few[name], default=None)
