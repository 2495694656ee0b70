"""What of the results stands together: panels of one protocol and axis point, lines of means and spreads over seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from hebbbench.errors import ResultError, suggestion
from hebbbench.plan import Axes
from hebbbench.plots.collection import Found
from hebbbench.plots.names import point_text, value_text
from hebbbench.record.schema import Result
from hebbbench.validation import canonical_json

MOST_PANELS = 12
"""More are not legible on a page."""
LISTED = 4
"""As many rules that are left out are named; of more, the number is."""


@dataclass(frozen=True)
class Line:
    """One line of a picture: at each x the mean over seeds, its sample standard deviation (0 for one seed), and n."""

    label: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    seeds: int


@dataclass(frozen=True)
class Panel:
    """One part of a picture: results of one protocol, and the axis values that they all have."""

    protocol: str
    point: Axes
    results: Sequence[Result]


def titles(panels: Sequence[Panel]) -> list[str]:
    """First what all panels have in common, for above them, then what each shows; a single one has nothing apart."""
    protocols = {panel.protocol for panel in panels}
    if len(protocols) > 1:
        return ["", *(_title(panel.protocol, panel.point) for panel in panels)]
    first = panels[0]
    common = {n: v for n, v in first.point.items() if all(panel.point.get(n) == v for panel in panels)}
    apart = [{n: v for n, v in panel.point.items() if n not in common} for panel in panels]
    return [_title(first.protocol, common), *(point_text(point) for point in apart)]


def _title(protocol: str, point: Axes) -> str:
    return f"{protocol}: {point_text(point)}" if point else protocol


def panels_of(found: Found, free: Callable[[str], Iterable[str]] = lambda protocol: ()) -> list[Panel]:
    """A panel for each protocol, and in it for each combination of values of the axes that are not free.

    Args:
        free: of a protocol, the axes along which its results may differ within a panel.

    Raises:
        ResultError: there are more than a picture holds.
    """
    panels = []
    for protocol in found.names:
        loose = set(free(protocol))
        groups: defaultdict[str, list[Result]] = defaultdict(list)
        points = {}
        for result in found.of(protocol):
            point = {name: value for name, value in result.axes.items() if name not in loose}
            groups[canonical_json(point)].append(result)
            points[canonical_json(point)] = point
        panels += [Panel(protocol, points[key], groups[key]) for key in sorted(groups, key=lambda k: _order(points[k]))]
    if len(panels) > MOST_PANELS:
        shares = {
            name: [value_text(point[name]) for point in _values(found.of(protocol), name)]
            for protocol in found.names
            for name in varying(found.of(protocol))
            if name not in set(free(protocol))
        }
        values = "; ".join(f"{name} ({', '.join(listed)})" for name, listed in shares.items())
        raise ResultError(
            f"that would be {len(panels)} panels, more than {MOST_PANELS}: one for each combination of {values}. "
            "Fix some with --axis name=value, or draw fewer protocols at a time."
        )
    return panels


def _values(results: Iterable[Result], axis: str) -> list[Axes]:
    """Each value of one axis among the results, as a point, in order."""
    found = {canonical_json(result.axes[axis]): {axis: result.axes[axis]} for result in results if axis in result.axes}
    return sorted(found.values(), key=_order)


def varying(results: Sequence[Result]) -> list[str]:
    """The axes that the results differ in, in the order of their first appearance."""
    names = dict.fromkeys(name for result in results for name in result.axes)
    return [name for name in names if len({result.axes.get(name) for result in results}) > 1]


def numeric(results: Sequence[Result]) -> list[str]:
    """Those of them that are numbers."""
    return [name for name in varying(results) if all(number(result, name) is not None for result in results)]


def number(result: Result, axis: str) -> float | None:
    """The result's value of an axis, if it is a number."""
    value = result.axes.get(axis)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def points_of(results: Iterable[Result]) -> list[Axes]:
    """The combinations of axis values among the results, in order of their numbers."""
    found = {canonical_json(result.axes): result.axes for result in results}
    return sorted(found.values(), key=_order)


def _order(axes: Axes) -> list[tuple[str, float, str]]:
    """Numbers by their size, words by their letters."""
    return [
        (name, float(value), "") if isinstance(value, int | float) else (name, 0.0, str(value))
        for name, value in sorted(axes.items())
    ]


def value_of(result: Result, metric: str) -> float | None:
    """A metric of a result that finished and could measure it."""
    found = result.metrics.get(metric)
    return found.value if result.status == "ok" and found is not None else None


def fate(result: Result, metric: str) -> str:
    """In a word, why a result has no such value: diverged, collapsed …; empty if it was never meant to have one."""
    found = result.metrics.get(metric)
    if found is not None and found.reason is not None:
        return found.reason.partition(":")[0]
    return "" if result.status == "ok" else result.status


def left_out(found: Found, drawn: Callable[[Result], bool], what: str) -> list[str]:
    """A sentence on the rules none of whose results are drawn, for want of what the picture shows."""
    rules = {result.rule.name for result in found.results}
    bare = sorted(rules - {result.rule.name for result in found.results if drawn(result)})
    if not bare:
        return []
    return [f"Without such a {what}: {', '.join(bare) if len(bare) <= LISTED else f'{len(bare)} other rules'}."]


def check_metric(found: Found, metric: str) -> None:
    """Refuse a metric that all results of a protocol lack: its protocol would be left out without a word.

    Raises:
        ResultError: naming the protocol and its metrics.
    """
    for protocol in found.names:
        results = found.of(protocol)
        if not any(metric in result.metrics for result in results):
            known = {name for result in results for name in result.metrics}
            raise ResultError(f"no result has the metric '{metric}' under '{protocol}'. {suggestion(metric, known)}")


def spread(label: str, samples: Iterable[tuple[float, float]]) -> Line:
    """A line through (x, y) samples: those of one x, from different seeds, are averaged."""
    groups: defaultdict[float, list[float]] = defaultdict(list)
    for x, y in samples:
        groups[x].append(y)
    xs = sorted(groups)
    return Line(
        label,
        tuple(xs),
        tuple(fmean(groups[x]) for x in xs),
        tuple(stdev(groups[x]) if len(groups[x]) > 1 else 0.0 for x in xs),
        max((len(values) for values in groups.values()), default=0),
    )


def metric_line(label: str, results: Iterable[Result], x: Callable[[Result], float | None], metric: str) -> Line | None:
    """The line of a metric over `x`, which is a number for each result; None if no result has both."""
    samples = [
        (place, value)
        for result in results
        if (value := value_of(result, metric)) is not None and (place := x(result)) is not None
    ]
    return spread(label, samples) if samples else None


def curves(results: Sequence[Result], names: Sequence[str]) -> dict[str, Line]:
    """Rule → the line of the curve of that name, x in epochs; of several names, each is a line, and its label says in
    what its name differs from the others. A line ends where the first of its seeds does."""
    lines = {}
    for rule in sorted({result.rule.name for result in results}):
        own = [result for result in results if result.rule.name == rule]
        for name, short in zip(names, _apart(names), strict=True):
            points = [result.curves[name] for result in own if result.curves.get(name)]
            shared = min((max(x for x, _ in each) for each in points), default=0.0)
            samples = [(x, y) for each in points for x, y in each if x <= shared]
            if samples:
                label = f"{rule}, {short}" if short else rule
                lines[label] = spread(label, samples)
    return lines


def _apart(names: Sequence[str]) -> list[str]:
    """Each name without what begins and ends all of them, between dots; empty for a single one."""
    parts = [name.split(".") for name in names]
    if len(parts) < 2:
        return [""] * len(parts)
    shortest = min(map(len, parts))
    first = next((i for i in range(shortest) if len({tuple(p[: i + 1]) for p in parts}) > 1), shortest)
    last = next((i for i in range(shortest - first) if len({tuple(p[len(p) - 1 - i :]) for p in parts}) > 1), 0)
    return [".".join(p[first : len(p) - last]) for p in parts]
