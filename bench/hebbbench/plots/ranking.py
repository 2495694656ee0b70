"""Rules ranked by accuracy under one protocol, at one point of its axes: a dot and its spread over seeds for each."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from hebbbench.board.rows import BACKPROP, RANDOM
from hebbbench.board.text import count
from hebbbench.plots.collection import Found
from hebbbench.plots.names import quantity
from hebbbench.plots.published import note, printed
from hebbbench.plots.series import Panel, check_metric, fate, left_out, panels_of, titles, value_of
from hebbbench.plots.sheet import Legend, add_legend, label_outer, panels
from hebbbench.plots.style import COLOURS
from hebbbench.record.card import locality
from hebbbench.record.schema import Result
from hebbbench.sections import Published

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.132
"""Inches a rule takes."""
AROUND = 0.8
"""Inches below the rows, for the x axis and its label."""
NEAR = 4
"""Chance is drawn if an accuracy is below this many times it; else it would only press the dots together."""

SHADES: dict[str, dict[str, Any]] = {
    "synapse": {"color": COLOURS[2], "marker": "o"},
    "unit": {"color": COLOURS[5], "marker": "s"},
    "layer": {"color": COLOURS[0], "marker": "^"},
    "global": {"color": COLOURS[1], "marker": "D"},
    "no learning": {"color": "black", "marker": "X"},
    "": {"color": "black", "marker": "o"},
}
"""How a rule's dot looks, by what its update was measured to depend on."""
LINES: dict[str, dict[str, Any]] = {
    BACKPROP: {"color": "0.35", "linewidth": 0.8, "linestyle": "-"},
    RANDOM: {"color": "0.35", "linewidth": 0.8, "linestyle": (0, (4, 2))},
    "chance": {"color": "0.35", "linewidth": 0.8, "linestyle": (0, (1, 1.5))},
}


class Row(NamedTuple):
    """One rule: its values (fractions, one a seed), why there is none, its locality, and what was published."""

    rule: str
    values: Sequence[float]
    fate: str
    seeds: int
    locality: str
    published: Sequence[float]

    @property
    def place(self) -> tuple[float, str]:
        """The best first, by what was measured, else by what was published; last those without either."""
        known = fmean(self.values) if self.values else max(self.published, default=-1.0)
        return -known, self.rule


def draw(found: Found, metric: str, published: bool) -> Figure:
    """Mean ± one standard deviation over seeds, best rule on top; lines at backprop's, at the random network's and, if
    it is near, at chance. A rule with fewer seeds than others says so; one without a value has a word in its row.

    Raises:
        ResultError: a protocol has no result with the metric, or nothing is published where it is asked for.
    """
    from matplotlib.lines import Line2D

    check_metric(found, metric)
    entries = printed(found, metric, published)
    shown = panels_of(found)
    tables = [rows_of(panel, metric, entries.get(panel.protocol, [])) for panel in shown]
    most = max(row.seeds for rows in tables for row in rows)
    everything = [row for rows in tables for row in rows]
    used = [name for name in SHADES if any(row.locality == name and row.values for row in everything)]
    several = len(used) > 1
    chance = {panel.protocol: _chance(found, panel, rows) for panel, rows in zip(shown, tables, strict=True)}
    lines = [name for name in (BACKPROP, RANDOM) if any(row.rule == name and row.values for row in everything)]
    lines += ["chance"] if any(value is not None for value in chance.values()) else []
    labels = [*lines, *(name or "not measured" for name in used if several)]
    notes = ["A rule's update depends on: its own synapse, its unit, its layer, or more (global)."] if several else []
    notes += left_out(found, lambda result: value_of(result, metric) is not None or bool(fate(result, metric)), "value")
    notes += note(e for panel in shown for e in entries.get(panel.protocol, []) if e.axes == panel.point)
    legend = Legend(labels, notes)
    height = AROUND + ROW * max(map(len, tables))
    figure, axes = panels(titles(shown), legend, height, share_y=False)
    for axis, panel, rows in zip(axes, shown, tables, strict=True):
        _rows(axis, rows, most, quantity(metric).scale, several)
        level = chance[panel.protocol]
        if level is not None:
            axis.axvline(100 * level, zorder=1, **LINES["chance"])
    measured = quantity(metric).label(found.losses)
    seeds = f"mean ± sd of {count(most, 'seed')}" if most > 1 else "one seed"
    label_outer(axes, f"{measured}\n({seeds})", "")
    handles = [Line2D([], [], **LINES[name]) for name in lines]
    handles += [Line2D([], [], linestyle="none", **SHADES[name]) for name in used if several]
    add_legend(figure, handles, legend)
    return figure


def rows_of(panel: Panel, metric: str, entries: Sequence[Published]) -> list[Row]:
    """Its rules, those that are only published included, best first; without those that were never meant to have the
    metric."""
    here = [entry for entry in entries if entry.axes == panel.point]
    rows = []
    for rule in sorted({result.rule.name for result in panel.results} | {entry.rule for entry in here}):
        own = [result for result in panel.results if result.rule.name == rule]
        values = [value for result in own if (value := value_of(result, metric)) is not None]
        why = next((word for result in own if (word := fate(result, metric))), "")
        numbers = [entry.value for entry in here if entry.rule == rule]
        if values or why or numbers:
            rows.append(Row(rule, values, why, len(values), _locality(own), numbers))
    return sorted(rows, key=lambda row: row.place)


def _locality(results: Sequence[Result]) -> str:
    return next((locality(result.card) for result in results if result.card is not None), "")


def _chance(found: Found, panel: Panel, rows: Sequence[Row]) -> float | None:
    """The accuracy of guessing, if it is near enough to be drawn."""
    protocol = found.protocols.get(panel.protocol)
    lowest = min((value for row in rows for value in (*row.values, *row.published)), default=1.0)
    return protocol.chance if protocol is not None and protocol.chance and lowest < NEAR * protocol.chance else None


def _rows(axis: Axes, rows: Sequence[Row], most: int, scale: float, shaded: bool) -> None:
    for height, row in enumerate(rows):
        look = SHADES[row.locality if shaded else ""]
        axis.axhline(height, color="0.92", linewidth=0.5, zorder=0)
        if row.values:
            sd = scale * stdev(row.values) if len(row.values) > 1 else 0.0
            middle = scale * fmean(row.values)
            axis.errorbar(middle, height, xerr=sd, linestyle="none", markersize=3.5, elinewidth=0.8, **look)
            if row.rule in LINES:
                axis.axvline(middle, zorder=1, **LINES[row.rule])
        elif row.fate:
            axis.annotate(row.fate, (0.02, height), xycoords=("axes fraction", "data"), va="center", fontsize=6)
        if row.published:
            hollow = {**look, "markerfacecolor": "none", "linestyle": "none", "markersize": 5}
            axis.plot([scale * value for value in row.published], [height] * len(row.published), **hollow)
    names = [row.rule if row.seeds in (0, most) else f"{row.rule} ({row.seeds})" for row in rows]
    axis.set_yticks(range(len(rows)), names, fontsize=6.5)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(len(rows) - 0.4, -0.6)
