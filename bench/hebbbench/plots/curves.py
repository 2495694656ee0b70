"""A quantity over training, one panel for each combination of axis values, one line a rule: Gini, alignment, norms."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from textwrap import fill
from typing import TYPE_CHECKING

from hebbbench.board.text import axes_text
from hebbbench.plots.series import curves, points_of
from hebbbench.plots.style import COLOURS, DASHES, label_outer, panels
from hebbbench.record.schema import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = 40
"""Letters in a line of a panel's title."""

PATTERNS = {"gini": "diagnostics.gini.*", "alignment": "diagnostics.hebbian_alignment.*"}
LABELS = {"gini": "Gini of mean step size (0–1)", "alignment": "cos(update, Hebb) (−1–1)"}


def draw(results: Sequence[Result], kind: str, pattern: str | None) -> Figure:
    """Mean over seeds with a band of ± one standard deviation.

    Args:
        kind: gini or alignment: which curve, unless `pattern` names another.

    Raises:
        ResultError: no result has such a curve.
    """
    wanted = pattern or PATTERNS[kind]
    everything = curves(results, wanted)
    order = {label: index for index, label in enumerate(everything)}
    results = [result for result in results if any(fnmatchcase(name, wanted) for name in result.curves)]
    points = points_of(results)
    figure, axes = panels(len(points))
    for axis, point in zip(axes, points, strict=True):
        own = [result for result in results if result.axes == point]
        for label, line in curves(own, wanted).items():
            index = order[label]
            colour = COLOURS[index % len(COLOURS)]
            low = [m - s for m, s in zip(line.mean, line.sd, strict=True)]
            high = [m + s for m, s in zip(line.mean, line.sd, strict=True)]
            axis.fill_between(line.x, low, high, color=colour, alpha=0.2, linewidth=0)
            axis.plot(line.x, line.mean, color=colour, linestyle=DASHES[index % len(DASHES)], label=label)
        axis.set_title(
            fill(axes_text(point).replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"), TITLE)
            if point
            else results[0].protocol.name
        )
        if kind == "alignment":
            axis.axhline(0, color="0.6", linewidth=0.6)
    if kind == "gini":
        axes[0].set_ylim(-0.03, 1.03)
    label_outer(axes, "training, epochs", LABELS[kind] if pattern is None else pattern)
    handles = {str(h.get_label()): h for axis in axes for h in axis.get_legend_handles_labels()[0]}
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=min(4 if len(axes) > 1 else 3, len(handles))
    )
    return figure
