"""Which lines stand in which panel of a picture against an axis, and what they are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hebbbench.plan import Axes
from hebbbench.plots.collection import Found
from hebbbench.plots.names import EQUALS, point_text
from hebbbench.plots.series import Panel, fate, numeric, panels_of, value_of, varying
from hebbbench.record.schema import Result
from hebbbench.sections import Published

MOST_LINES = 8
"""With more lines than this in one panel, each choice of the other axes has a panel of its own."""


@dataclass
class Part:
    """One panel: label → the results of a line, and label → what was published of it, by somebody who ran it."""

    panel: Panel
    lines: dict[str, list[Result]]
    published: dict[str, list[Published]] = field(default_factory=dict)


def shared_axes(found: Found) -> list[str]:
    """The numeric axes in which the results of every protocol differ, first those that concern all of their rules."""
    first, *others = [numeric(found.of(protocol)) for protocol in found.names]
    shared = [name for name in first if all(name in other for other in others)]
    return sorted(shared, key=lambda name: any(not _concerns(found, result, name) for result in found.results))


def arrange(found: Found, x: str, metric: str) -> list[Part]:
    """The panels with their lines: of each rule, and of each choice of the axes besides x. These part lines as long as
    there are few, else panels. A line of which nothing is to be said of the metric is left out."""

    def others(protocol: str) -> list[str]:
        return [name for name in varying(found.of(protocol)) if name != x]

    lines = {name: _lines(found, found.of(name), others(name), metric) for name in found.names}
    few = all(len(group) <= MOST_LINES for group in lines.values())
    shown = panels_of(found, free=lambda protocol: [x, *(others(protocol) if few else [])])
    return [Part(panel, lines[panel.protocol] if few else _lines(found, panel.results, [], metric)) for panel in shown]


def add_published(part: Part, entries: Sequence[Published], x: str) -> None:
    """Put each published number that has its place in the panel with the line of its rule and axis values, or by itself
    if nobody has run that here."""
    for entry in entries:
        if x not in entry.axes or any(entry.axes.get(name) != value for name, value in part.panel.point.items()):
            continue
        others = _but(entry.axes, x)
        own = (
            label
            for label, results in part.lines.items()
            if any(entry.rule == result.rule.name and others == _but(result.axes, x) for result in results)
        )
        apart = {name: value for name, value in others.items() if name not in part.panel.point}
        label = next(own, None) or _label(entry.rule, apart, named=True)
        part.published.setdefault(label, []).append(entry)


def heading(labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """What all labels begin with, as in 'weight decay γ = 0.1', as a sentence, and the labels without it."""
    names = {label.rpartition(EQUALS)[0] for label in labels}
    if len(labels) < 2 or len(names) > 1 or not (name := names.pop()):
        return [], list(labels)
    plain = name.replace("\N{NO-BREAK SPACE}", " ")
    return [f"{plain}:"], [label.removeprefix(name + EQUALS) for label in labels]


def _lines(found: Found, results: Sequence[Result], others: Sequence[str], metric: str) -> dict[str, list[Result]]:
    lines: dict[str, list[Result]] = {}
    several = len({result.rule.name for result in results}) > 1
    for result in sorted(results, key=lambda result: (result.rule.name, [_rank(result.axes.get(n)) for n in others])):
        point = {n: result.axes[n] for n in others if n in result.axes and _concerns(found, result, n)}
        lines.setdefault(_label(result.rule.name, point, named=several), []).append(result)
    return {
        label: own
        for label, own in lines.items()
        if any(value_of(result, metric) is not None or fate(result, metric) for result in own)
    }


def _label(rule: str, point: Axes, *, named: bool) -> str:
    """The rule, if it is to be named or nothing else is, and the axis values of a line."""
    return ", ".join([*([rule] if named or not point else []), *([point_text(point)] if point else [])])


def _concerns(found: Found, result: Result, axis: str) -> bool:
    """Whether the axis can be a setting of the rule: one of hyper-parameters is so of the rules that it names."""
    known = found.protocols.get(result.protocol.name)
    if known is None or axis not in known.axes:
        return True
    about = known.axes[axis]
    return not about.rules or result.rule.name in about.rules or not about.path.startswith("hyperparameters.")


def _but(axes: Axes, x: str) -> Axes:
    return {name: value for name, value in axes.items() if name != x}


def _rank(value: object) -> tuple[float, str]:
    """Numbers by their size, words by their letters."""
    return (float(value), "") if isinstance(value, int | float) else (0.0, str(value))
