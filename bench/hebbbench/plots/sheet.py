"""The sheet a picture is drawn on: panels and titles, axes and legend, and how much room all of it takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from textwrap import fill
from typing import TYPE_CHECKING, Any

from hebbbench.plots.style import COLUMN, SETTINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDE = 8
"""From this ratio of the largest to the smallest value above 0 on, an axis is logarithmic."""
GAP = 2.0
"""Points that must lie between two tick labels."""
MANY = 15
"""From more entries on the legend of a single panel stands beside it, and the picture is two columns wide."""
ENTRY = 0.155
"""Inches that a line of the legend takes."""
HANDLE = 0.4
"""Inches that an entry's line and the space before the next column take."""
LETTER = 0.066
"""Inches that a letter of a title or label takes, on average; in a legend, SMALL."""
SMALL = 0.06
BETWEEN = 0.06
"""Inches on both sides of a panel, so that tick labels of two do not meet."""
Y_LETTERS = 40
"""Letters in a line of a y axis' label."""


@dataclass(frozen=True)
class Legend:
    """The entries of a legend, and sentences that stand above them."""

    labels: Sequence[str]
    notes: Sequence[str] = ()

    def beside(self, panels: int) -> bool:
        """Whether it is too long to stand under a column's picture."""
        return panels == 1 and len(self.labels) > MANY

    def columns(self, width: float) -> int:
        """How many entries stand abreast in that many inches. They are laid out column by column, the first the
        fullest."""
        widths = [HANDLE + _inches(label) for label in self.labels]
        for columns in range(len(widths), 1, -1):
            rows, fuller = divmod(len(widths), columns)
            ends = [rows * i + min(i, fuller) for i in range(columns + 1)]
            if sum(max(widths[a:b]) for a, b in pairwise(ends)) <= width:
                return columns
        return 1

    def text(self, width: float) -> str:
        """The sentences, broken into lines of that many inches."""
        return "\n".join(fill(note, int(width / SMALL)) for note in self.notes)

    def height(self, width: float) -> float:
        """Inches that it takes under a picture of that width."""
        lines = -(-len(self.labels) // self.columns(width)) if self.labels else 0
        return ENTRY * (lines + _lines(self.text(width)))


def _inches(text: str) -> float:
    """How long a text of a legend is."""
    from matplotlib.textpath import TextPath

    return 1.03 * float(TextPath((0, 0), text, size=SETTINGS["legend.fontsize"]).get_extents().width) / 72


def panels(titles: Sequence[str], legend: Legend, height: float, *, share_y: bool = True) -> tuple[Figure, list[Axes]]:
    """A figure of titled panels that share x: one in a column, else two or three abreast, with room for a legend.

    Args:
        titles: of the whole, then of each panel; empty where there is none.
        height: inches of a panel with its tick labels and the label of its x axis.
    """
    from matplotlib import pyplot

    above, *each = titles
    across = min(len(each), 2 if len(each) < 5 else 3)
    down = -(-len(each) // across)
    beside = legend.beside(len(each))
    width = COLUMN * (2 if beside or across > 1 else 1)
    above = _broken(above, width)
    each = [_broken(title, width / across) for title in each]
    tall = down * (height + ENTRY * max(map(_lines, each))) + ENTRY * _lines(above)
    if beside:
        tall = max(tall, ENTRY * (-(-len(legend.labels) // 2) + _lines(legend.text(width / 2))) + 0.2)
    else:
        tall += legend.height(width - 0.2)
    figure, grid = pyplot.subplots(down, across, figsize=(width, tall), sharex=True, sharey=share_y, squeeze=False)
    figure.set_layout_engine("constrained", w_pad=BETWEEN)
    axes = [axis for row in grid for axis in row]
    for spare in axes[len(each) :]:
        spare.set_visible(False)
    for index, (axis, title) in enumerate(zip(axes, each, strict=False)):
        axis.set_title(title)
        if index + across >= len(each):
            axis.tick_params(labelbottom=True)
    if above:
        figure.suptitle(above, fontsize=SETTINGS["axes.titlesize"])
    return figure, axes[: len(each)]


def _broken(title: str, width: float) -> str:
    """A title in lines of that many inches, less a margin."""
    return fill(title, int(width / LETTER * 0.8), break_on_hyphens=False)


def _lines(text: str) -> int:
    return text.count("\n") + 1 if text else 0


def add_legend(figure: Figure, handles: Sequence[Any], legend: Legend) -> None:
    """Put the legend under the panels, or beside a single one if it is long."""
    width = float(figure.get_size_inches()[0]) - 0.2
    if legend.beside(sum(axis.get_visible() for axis in figure.axes)):
        figure.legend(
            handles, legend.labels, loc="outside right upper", ncols=2,
            title=legend.text(width / 2) or None, alignment="left",
        )  # fmt: skip
    elif legend.labels or legend.notes:
        figure.legend(
            handles, legend.labels, loc="outside lower center", ncols=legend.columns(width),
            title=legend.text(width) or None, alignment="left",
        )  # fmt: skip


def lay_out(axis: Axes, values: Iterable[float], *, ticked: bool = True) -> None:
    """Lay x out for these values: logarithmic if they are wide apart, and linear from the least above 0 down to 0.

    Args:
        ticked: with a tick at each value, and no other; else at round numbers.
    """
    places = sorted(set(values))
    above = [value for value in places if value > 0]
    wide = bool(above) and far_apart(above[0], above[-1])
    if wide:
        if places[0] > 0:
            axis.set_xscale("log")
        else:
            axis.set_xscale("symlog", linthresh=above[0], linscale=0.5)
    if ticked:
        axis.set_xticks(places, [f"{value:g}" for value in places])
        axis.minorticks_off()
    elif not wide:
        axis.locator_params(axis="x", nbins=5)
    else:
        ticks = [0.0] if places[0] <= 0 else []
        ticks += _round_numbers(above[0], above[-1])
        axis.set_xticks(ticks, [f"{value:g}" if value < 1e6 else f"{value / 1e6:g} M" for value in ticks])
        axis.minorticks_off()


def far_apart(least: float, largest: float) -> bool:
    """Whether values above 0, from the least to the largest, are legible by their logarithms alone."""
    return least > 0 and largest / least >= WIDE


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2, 5, 10 … from low to high, or powers of ten alone if these are many decades apart."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 1e3 else (1,)
    numbers = [float(f"{step}e{decade}") for decade in decades for step in steps]
    return [number for number in numbers if low * 0.9 <= number <= high * 1.1]


def settle(figure: Figure) -> None:
    """Turn the tick labels of an x axis whose labels would touch, and hide those that would touch all the same."""
    for turn in (False, True):
        figure.canvas.draw()
        for axis in figure.axes:
            labels = [label for label in axis.get_xticklabels() if label.get_visible() and label.get_text()]
            if not _touching(labels):
                continue
            for label in labels:
                if not turn:
                    label.set(rotation=45, ha="right", rotation_mode="anchor")
            if turn:
                for label in _touching(labels):
                    label.set_visible(False)


def _touching(labels: Sequence[Any]) -> list[Any]:
    """The labels that would touch the last one before them that does not."""
    found: list[Any] = []
    end = -math.inf
    for label in labels:
        box = label.get_window_extent()
        gap = GAP * label.figure.dpi / 72
        turned = bool(label.get_rotation() % 180)
        # Turned by 45°, boxes overlap where letters do not: what parts two lines of text is their height.
        thickness = label.get_fontsize() * label.figure.dpi / 72 * math.sqrt(2)
        left, right = (box.x1 - thickness, box.x1) if turned else (box.x0, box.x1)
        if left < end + gap:
            found.append(label)
        else:
            end = right
    return found


def label_outer(axes: Sequence[Axes], x: str, y: str) -> None:
    """Axis labels on the outer panels only: they share their axes. Where one stands above another, y is of both."""
    across = 1 + max(index for index, axis in enumerate(axes) if axis.get_subplotspec().is_first_row())  # type: ignore[union-attr]
    for axis in axes[-across:]:
        axis.set_xlabel(x)
    if len(axes) > across:
        axes[0].figure.supylabel(y, fontsize=SETTINGS["axes.labelsize"])
    else:
        axes[0].set_ylabel(fill(y, Y_LETTERS, break_on_hyphens=False))
