"""A metric against a numeric axis of a protocol, as it is, one line a rule and a choice of the other axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hebbbench.errors import ResultError, suggestion
from hebbbench.plots.series import metric_line
from hebbbench.plots.style import COLUMN, SYMBOLS, look
from hebbbench.record.schema import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE = 8
"""From this ratio of the largest to the smallest value above 0 on, the axis is logarithmic; linear below the latter."""


def draw(results: Sequence[Result], x: str | None, metric: str) -> Figure:
    """Mean over seeds with a bar of ± one standard deviation. Where no seed has a value there is no point, and where
    some have none, as when weights collapsed, it is hollow.

    Args:
        x: a numeric axis; if None, the first that the results differ in.

    Raises:
        ResultError: there is no such axis, or no result has the metric.
    """
    from matplotlib import pyplot

    varying = _varying(results)
    numeric = [name for name in varying if all(_number(result, name) is not None for result in results)]
    x = x or next(iter(numeric), None)
    if x is None or x not in numeric:
        raise ResultError(f"the results do not differ in a numeric axis '{x or ''}'. {suggestion(x or '', numeric)}")
    lines: dict[str, list[Result]] = {}
    several = len({result.rule.name for result in results}) > 1
    others = [name for name in varying if name != x]
    for result in results:
        parts = [result.rule.name] if several or not others else []
        parts += [f"{SYMBOLS.get(name, name)} {_text(result.axes[name])}" for name in others if name in result.axes]
        lines.setdefault(", ".join(parts), []).append(result)
    figure: Figure
    figure, axis = pyplot.subplots(figsize=(COLUMN, 2.9))
    axis.axhline(0, color="0.6", linewidth=0.6)
    seen: set[float] = set()
    for index, (label, own) in enumerate(lines.items()):
        line = metric_line(label, own, lambda result: _number(result, x), metric)
        if line is not None:
            seen |= set(line.x)
            axis.errorbar(line.x, line.mean, yerr=line.sd, label=label, capsize=2, elinewidth=0.8, **look(index))
            partial = [at for at in zip(line.x, line.mean, strict=True) if at[0] in _without(own, x, metric)]
            hollow = {**look(index), "linestyle": "none", "markerfacecolor": "white", "zorder": 3}
            axis.plot([at for at, _ in partial], [mean for _, mean in partial], **hollow)
    if not seen:
        known = sorted({name for result in results for name in result.metrics})
        raise ResultError(f"no result has the metric '{metric}'. {suggestion(metric, known)}")
    above = [value for value in seen if value > 0]
    if above and max(above) / min(above) >= WIDE:
        axis.set_xscale("symlog", linthresh=min(above), linscale=0.5)
    axis.margins(x=0.06)
    ticks = sorted(seen)
    axis.set_xticks(ticks, [_text(tick) for tick in ticks], rotation=45 if len(ticks) > 5 else 0)
    axis.minorticks_off()
    axis.set_xlabel(SYMBOLS.get(x, x))
    axis.set_ylabel(f"{metric} (−1–1)" if metric.startswith("alignment.") else metric)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _varying(results: Sequence[Result]) -> list[str]:
    """The axes that the results differ in."""
    names = dict.fromkeys(name for result in results for name in result.axes)
    return [name for name in names if len({result.axes.get(name) for result in results}) > 1]


def _without(results: Sequence[Result], x: str, metric: str) -> set[float | None]:
    """Where on the axis some result has no value."""
    return {
        _number(result, x) for result in results if (found := result.metrics.get(metric)) is None or found.value is None
    }


def _number(result: Result, name: str) -> float | None:
    value = result.axes.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
