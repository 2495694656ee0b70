"""A quantity over training or over the epochs of the read-out, a panel for each protocol and combination of axis
values, a line for each rule: losses, accuracies, alignments, norms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from hebbbench.errors import ResultError, suggestion
from hebbbench.plots.collection import Found
from hebbbench.plots.names import epochs, quantity
from hebbbench.plots.series import Line, curves, left_out, panels_of, titles
from hebbbench.plots.sheet import Legend, add_legend, label_outer, panels
from hebbbench.plots.style import handle, look
from hebbbench.record.schema import DIAGNOSTICS, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PATTERNS = {
    "gini": ("diagnostics.gini.*",),
    "alignment": ("diagnostics.hebbian_alignment.*", "alignment.*.sgd"),
    "curve": ("train.loss",),
}
"""The curve that a kind of picture shows: the first that any result has."""
DECADES = 30
"""From this ratio of the largest to the smallest mean on, losses stand on a logarithmic axis."""
FEW_EPOCHS = 2
"""Up to so many a curve has points between whole epochs; beyond, ticks stand at whole ones."""
BARE = 8
"""With more lines than this, each has markers too."""


def draw(found: Found, kind: Literal["gini", "alignment", "curve"], pattern: str | None) -> Figure:
    """Mean over seeds with a band of ± one standard deviation.

    Args:
        kind: which curve, unless `pattern` names another; curve: the training loss.

    Raises:
        ResultError: no result of a protocol has such a curve, or the pattern fits curves of several quantities.
    """
    from matplotlib.ticker import MaxNLocator

    names = _names(found, kind, pattern)

    def has_one(result: Result) -> bool:
        return any(name in result.curves for name in names)

    shown = panels_of(replace(found, results=[result for result in found.results if has_one(result)]))
    lines = [curves(panel.results, names) for panel in shown]
    order = {label: i for i, label in enumerate(sorted({label for group in lines for label in group}))}
    measured = quantity(names[0])
    layers = {quantity(name).layer for name in names}
    legend = Legend(list(order), left_out(found, has_one, "curve"))
    figure, axes = panels(titles(shown), legend, 2.5 if len(shown) < 3 else 2.2)
    marked = len(order) > BARE
    for axis, group in zip(axes, lines, strict=True):
        for label, line in group.items():
            _band(axis, line, measured.scale, order[label], marked)
        if measured.is_signed:
            axis.axhline(0, color="0.6", linewidth=0.6)
    if measured.unit == "0–1":
        axes[0].set_ylim(-0.03, 1.03)
    means = [mean for group in lines for line in group.values() for mean in line.mean]
    if measured.is_loss and min(means) > 0 and max(means) / min(means) >= DECADES:
        axes[0].set_yscale("log")
        axes[0].set_ylim(min(means) / 1.5, max(means) * 1.5)
    if max(x for group in lines for line in group.values() for x in line.x) > FEW_EPOCHS:
        axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    label_outer(axes, epochs(names[0]), measured.label(found.losses, layer=len(layers) == 1))
    add_legend(figure, [handle(i, **({} if marked else {"marker": ""})) for i in order.values()], legend)
    return figure


def _band(axis: Axes, line: Line, scale: float, index: int, marked: bool) -> None:
    style = look(index)
    mean = [scale * value for value in line.mean]
    low = [m - scale * s for m, s in zip(mean, line.sd, strict=True)]
    high = [m + scale * s for m, s in zip(mean, line.sd, strict=True)]
    axis.fill_between(line.x, low, high, color=style["color"], alpha=0.08 if marked else 0.2, linewidth=0)
    if len(line.x) == 1:
        axis.errorbar(line.x, mean, yerr=scale * line.sd[0], label=line.label, capsize=2, **style)
        return
    if not marked:
        style["marker"] = ""
    axis.plot(line.x, mean, label=line.label, markevery=max(1, len(line.x) // 6), **style)


def _names(found: Found, kind: str, pattern: str | None) -> list[str]:
    """The names of the curves to draw, of one quantity."""
    wanted = [pattern] if pattern is not None else list(PATTERNS[kind])
    for candidate in wanted:
        fit = {
            protocol: sorted({n for r in found.of(protocol) for n in r.curves if fnmatchcase(n, candidate)})
            for protocol in found.names
        }
        if not any(fit.values()):
            continue
        for protocol, own in fit.items():
            if not own:
                raise _no_curve(found, [protocol], [candidate], pattern is None)
        names = sorted({name for own in fit.values() for name in own})
        kinds = {(quantity(name).text, epochs(name)) for name in names}
        if len(kinds) > 1:
            raise ResultError(
                f"'{candidate}' fits curves of {len(kinds)} quantities: {', '.join(names)}. Choose one with --curve."
            )
        return names
    raise _no_curve(found, found.names, wanted, pattern is None)


def _no_curve(found: Found, protocols: Sequence[str], wanted: Sequence[str], default: bool) -> ResultError:
    known = sorted({name for protocol in protocols for result in found.of(protocol) for name in result.curves})
    looked = " or ".join(f"'{name}'" for name in wanted)
    remedy = " Or run with --diagnostics." if all(name.startswith(DIAGNOSTICS) for name in wanted) else ""
    if not known:
        return ResultError(f"{', '.join(protocols)}: no result holds a curve.{remedy}")
    listed = suggestion("" if default else wanted[0], known).replace("Valid:", "Their curves, for --curve:")
    return ResultError(f"{', '.join(protocols)}: no result has a curve {looked}. {listed}{remedy}")
