"""A metric over two numeric axes of a protocol, such as noise and weight decay, with the contour where it is zero."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from typing import TYPE_CHECKING, Any

from hebbbench.errors import ResultError
from hebbbench.plots.collection import Found
from hebbbench.plots.names import axis_label, quantity
from hebbbench.plots.series import check_metric, number, panels_of, titles, value_of, varying
from hebbbench.plots.sheet import Legend, far_apart, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(found: Found, x: str | None, y: str | None, metric: str) -> Figure:
    """Means over seeds: in colours around zero for what has a sign, else from the least to the largest, by their
    logarithms if these are far apart; a cell without a value is grey.

    Args:
        x, y: names of numeric axes; if None, the two that the results differ in.

    Raises:
        ResultError: there are not two such axes, the results differ in another one, or none has the metric.
    """
    import numpy as np
    from matplotlib.colors import LogNorm

    results = found.results
    differing = sorted(varying(results))
    x = x or next((name for name in differing if name != y), None)
    y = y or next((name for name in differing if name != x), None)
    rules = sorted({result.rule.name for result in results})
    if x is None or y is None or x == y or set(differing) - {x, y} or len(rules) > 1 or len(found.names) > 1:
        raise ResultError(
            "a heat map needs results of one rule that differ in two numeric axes. These differ in: "
            f"{', '.join(differing) or 'none'}; rules: {', '.join(rules)}; protocols: {', '.join(found.names)}. "
            "Fix the others with --axis name=value and --rule NAME."
        )
    check_metric(found, metric)
    measured = quantity(metric)
    cells: defaultdict[tuple[float, float], list[float]] = defaultdict(list)
    for result in results:
        a, b, value = number(result, x), number(result, y), value_of(result, metric)
        if a is not None and b is not None and value is not None:
            cells[a, b].append(measured.scale * value)
    if not cells:
        raise ResultError(f"no result has the metric '{metric}' at numeric values of {x} and {y}.")
    xs, ys = sorted({at[0] for at in cells}), sorted({at[1] for at in cells})
    grid = np.full((len(ys), len(xs)), np.nan)
    for (a, b), values in cells.items():
        grid[ys.index(b), xs.index(a)] = fmean(values)
    (panel,) = panels_of(found, free=lambda _: (x, y))
    figure, (axis,) = panels(titles([panel]), Legend([]), 2.9)
    reach = float(np.nanmax(np.abs(grid))) or 1.0
    colours: dict[str, Any] = (
        {"cmap": "PuOr_r", "vmin": -reach, "vmax": reach} if measured.is_signed else {"cmap": "cividis"}
    )
    least, largest = float(np.nanmin(grid)), float(np.nanmax(grid))
    if not measured.is_signed and not measured.is_accuracy and far_apart(least, largest):
        colours["norm"] = LogNorm(least, largest)
    axis.set_facecolor("0.85")
    image = axis.imshow(grid, origin="lower", aspect="auto", **colours)
    if measured.is_signed and least < 0 < largest and min(grid.shape) > 1:
        contour = axis.contour(np.ma.masked_invalid(grid), levels=[0.0], colors="black", linewidths=1.2)
        axis.clabel(contour, fmt={0.0: "0"}, fontsize=7)
    axis.set_xticks(range(len(xs)), [f"{value:g}" for value in xs])
    axis.set_yticks(range(len(ys)), [f"{value:g}" for value in ys])
    axis.set_xlabel(axis_label(x))
    axis.set_ylabel(axis_label(y))
    most = max(map(len, cells.values()))
    label = measured.label(found.losses)
    figure.colorbar(image, ax=axis, label=f"{label}\nmean of {most} seeds" if most > 1 else f"{label}, one seed")
    return figure
