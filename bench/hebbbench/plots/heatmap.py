"""A metric over two numeric axes of a protocol, such as noise and weight decay, with the contour where it is zero."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from hebbbench.errors import ResultError
from hebbbench.plots.series import varying
from hebbbench.plots.style import COLUMN, SYMBOLS, turned
from hebbbench.record.schema import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(results: Sequence[Result], x: str | None, y: str | None, metric: str) -> Figure:
    """Means over seeds in colours around zero; a cell without a value is grey.

    Args:
        x, y: names of numeric axes; if None, the two that the results differ in.

    Raises:
        ResultError: there are not two such axes, the results differ in another one, or none has the metric.
    """
    import numpy as np
    from matplotlib import pyplot

    differing = sorted(varying(results))
    x = x or next((name for name in differing if name != y), None)
    y = y or next((name for name in differing if name != x), None)
    if x is None or y is None or x == y or set(differing) - {x, y} or len({r.rule.name for r in results}) > 1:
        raise ResultError(
            "a heat map needs results of one rule that differ in two numeric axes. These differ in: "
            f"{', '.join(differing) or 'none'}; rules: {', '.join(sorted({r.rule.name for r in results}))}. "
            "Fix the others with --axis name=value and --rule NAME."
        )
    cells: defaultdict[tuple[float, float], list[float]] = defaultdict(list)
    for result in results:
        found = result.metrics.get(metric)
        at = result.axes.get(x), result.axes.get(y)
        if found is not None and found.value is not None and all(isinstance(v, int | float) for v in at):
            cells[float(at[0]), float(at[1])].append(found.value)  # type: ignore[arg-type]
    if not cells:
        raise ResultError(f"no result has the metric '{metric}' at numeric values of {x} and {y}.")
    xs, ys = sorted({at[0] for at in cells}), sorted({at[1] for at in cells})
    grid = np.full((len(ys), len(xs)), np.nan)
    for (a, b), values in cells.items():
        grid[ys.index(b), xs.index(a)] = fmean(values)
    figure: Figure
    figure, axis = pyplot.subplots(figsize=(COLUMN, 2.9))
    reach = float(np.nanmax(np.abs(grid))) or 1.0
    axis.set_facecolor("0.85")
    image = axis.imshow(grid, origin="lower", cmap="PuOr_r", vmin=-reach, vmax=reach, aspect="auto")
    if np.nanmin(grid) < 0 < np.nanmax(grid) and min(grid.shape) > 1:
        contour = axis.contour(np.ma.masked_invalid(grid), levels=[0.0], colors="black", linewidths=1.2)
        axis.clabel(contour, fmt={0.0: "0"}, fontsize=7)
    axis.set_xticks(range(len(xs)), [f"{value:g}" for value in xs], rotation=turned(xs))
    axis.set_yticks(range(len(ys)), [f"{value:g}" for value in ys])
    axis.set_xlabel(SYMBOLS.get(x, x))
    axis.set_ylabel(SYMBOLS.get(y, y))
    figure.colorbar(image, ax=axis, label=f"{metric} (mean over seeds)")
    return figure
