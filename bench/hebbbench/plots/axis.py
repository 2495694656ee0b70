"""A metric against a numeric axis of a protocol: a line for each rule and each choice of the other axes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hebbbench.errors import ResultError, suggestion
from hebbbench.plots.collection import Found
from hebbbench.plots.lines import add_published, arrange, heading, shared_axes
from hebbbench.plots.names import axis_label, quantity
from hebbbench.plots.published import note, printed
from hebbbench.plots.ranking import NEAR
from hebbbench.plots.series import check_metric, fate, left_out, metric_line, number, numeric, titles, value_of
from hebbbench.plots.sheet import Legend, add_legend, label_outer, lay_out, panels
from hebbbench.plots.style import handle, look
from hebbbench.protocol import Protocol
from hebbbench.record.schema import Result
from hebbbench.sections import Published

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BARS: dict[str, Any] = {"capsize": 2, "elinewidth": 0.8}
HALF: dict[str, Any] = {"linestyle": "none", "fillstyle": "left", "markerfacecoloralt": "white", "markersize": 5}
"""How a mark looks that is a mean over some of the seeds only."""
HOLLOW: dict[str, Any] = {"markerfacecolor": "none", "linestyle": ":", "linewidth": 0.6, "markersize": 5}
"""How published numbers look."""
PARTIAL = "Half-filled, n/N: n of N seeds have a value."


def draw(found: Found, x: str | None, metric: str, published: bool = False) -> Figure:
    """Mean over seeds with a bar of ± one standard deviation. Where some have no value, as when weights collapsed, the
    mark is half-filled, is not joined to the others, and says how many have; where none of a line's has one, what
    became of them stands at the foot.

    Args:
        x: a numeric axis; if None, the first that the results of all protocols differ in.

    Raises:
        ResultError: a protocol has no such axis, no result of it has the metric, or nothing is published where it is
            asked for.
    """
    x = _x(found, x)
    check_metric(found, metric)
    entries = printed(found, metric, published)
    parts = arrange(found, x, metric)
    for part in parts:
        add_published(part, entries.get(part.panel.protocol, []), x)
    measured = {label for part in parts for label in part.lines}
    drawn = [label for part in parts for label in part.lines] + [label for part in parts for label in part.published]
    order = {label: index for index, label in enumerate(dict.fromkeys(drawn))}
    notes = [PARTIAL] if any(_partial(own, x, metric) for part in parts for own in part.lines.values()) else []
    notes += note(entry for part in parts for own in part.published.values() for entry in own)
    notes += left_out(found, lambda r: value_of(r, metric) is not None or bool(fate(r, metric)), "value")
    above, labels = heading(list(order))
    legend = Legend(labels, notes + above)
    figure, axes = panels(titles([part.panel for part in parts]), legend, 2.5)
    kind = quantity(metric)
    places: set[float] = set()
    for axis, part in zip(axes, parts, strict=True):
        if kind.is_signed:
            axis.axhline(0, color="0.6", linewidth=0.6)
        for label, own in part.lines.items():
            places |= _line(axis, own, x, metric, kind.scale, {**look(order[label]), "label": label})
        _words(axis, part.lines, x, metric, order)
        for label, numbers in part.published.items():
            places |= _hollow(axis, numbers, x, kind.scale, look(order[label]))
        if kind.is_accuracy:
            _chance(axis, found.protocols.get(part.panel.protocol))
    lay_out(axes[0], places | {at for r in found.results if fate(r, metric) and (at := number(r, x)) is not None})
    for axis in axes:
        axis.margins(x=0.06)
        axis.autoscale_view()
    label_outer(axes, axis_label(x), kind.label(found.losses))
    add_legend(figure, [handle(i, **({} if label in measured else HOLLOW)) for label, i in order.items()], legend)
    return figure


def _x(found: Found, x: str | None) -> str:
    """The axis that is asked for, or the first that will do, if all protocols' results differ in it."""
    x = x or next(iter(shared_axes(found)), None)
    if x is None:
        raise ResultError(
            f"{', '.join(found.names)}: the results differ in no numeric axis that all of them have. "
            "Draw them with --kind accuracy or curve, or choose more results."
        )
    for protocol in found.names:
        known = numeric(found.of(protocol))
        if x not in known:
            out = f" {'Or leave' if known else 'Leave'} '{protocol}' out." if len(found.names) > 1 else ""
            raise ResultError(
                f"the results of '{protocol}' do not differ in a numeric axis '{x}'. {suggestion(x, known)}{out}"
            )
    return x


def _line(
    axis: Axes, results: Sequence[Result], x: str, metric: str, scale: float, style: dict[str, Any]
) -> set[float]:
    """The line's marks and bars, half-filled and not joined where some seeds have no value; where they are."""
    line = metric_line("", results, lambda result: number(result, x), metric)
    if line is None:
        return set()
    partial = _partial(results, x, metric)
    points = list(zip(line.x, [scale * m for m in line.mean], [scale * s for s in line.sd], strict=True))
    whole = [point for point in points if point[0] not in partial]
    if whole:
        at, mean, sd = zip(*whole, strict=True)
        axis.errorbar(at, mean, yerr=sd, **BARS, **style)
    for place, middle, spread in (point for point in points if point[0] in partial):
        axis.errorbar([place], [middle], yerr=[spread], **BARS, **{**style, **HALF})
        right = place == points[0][0]
        beside: dict[str, Any] = {"xytext": (5 if right else -5, 3), "ha": "left" if right else "right"}
        axis.annotate(partial[place], (place, middle), textcoords="offset points", fontsize=6, **beside)
    return set(line.x)


def _words(axis: Axes, lines: dict[str, list[Result]], x: str, metric: str, order: dict[str, int]) -> None:
    """At the foot, what became of all seeds of a line at a place; words at one place stand beside each other."""
    taken: Counter[float] = Counter()
    for label, results in lines.items():
        fates: dict[float, str] = {}
        for result in results:
            if (at := number(result, x)) is not None and fate(result, metric):
                fates.setdefault(at, fate(result, metric))
        for result in results:
            if value_of(result, metric) is not None and (at := number(result, x)) is not None:
                fates.pop(at, None)
        for at, word in fates.items():
            axis.update_datalim([(at, 0.0)], updatey=False)
            where: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            style = {"color": look(order[label])["color"], "fontsize": 7, "rotation": 90}
            axis.annotate(word, (at, 0.03), (-9 * taken[at], 0), ha="center", va="bottom", **where, **style)
            taken[at] += 1


def _hollow(axis: Axes, numbers: Sequence[Published], x: str, scale: float, style: dict[str, Any]) -> set[float]:
    """Published numbers as hollow marks, joined where there is one at each place; where they are."""
    points = sorted((float(value), scale * e.value) for e in numbers if isinstance(value := e.axes[x], int | float))
    at = [place for place, _ in points]
    hollow = {**style, **HOLLOW, **({} if len(set(at)) == len(at) else {"linestyle": "none"})}
    axis.plot(at, [value for _, value in points], **hollow)
    return set(at)


def _chance(axis: Axes, protocol: Protocol | None) -> None:
    """A line at the accuracy of guessing, if it is near."""
    if protocol is not None and protocol.chance and axis.dataLim.y0 < 100 * NEAR * protocol.chance:
        axis.axhline(100 * protocol.chance, color="0.6", linewidth=0.6)
        place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "center", "va": "bottom"}
        axis.annotate("chance", (0.2, 100 * protocol.chance), color="0.4", fontsize=7, **place)


def _partial(results: Sequence[Result], x: str, metric: str) -> dict[float, str]:
    """Where on the axis some seeds, but not all, have no value → n/N of those that have."""
    found = {}
    for at in {place for result in results if (place := number(result, x)) is not None}:
        have = [value_of(result, metric) is not None for result in results if number(result, x) == at]
        if any(have) and not all(have):
            found[at] = f"{sum(have)}/{len(have)}"
    return found
