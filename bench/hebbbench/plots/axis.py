"""A metric against a numeric axis of a protocol, as it is, one line a rule and a choice of the other axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hebbbench.errors import ResultError, suggestion
from hebbbench.plots.series import metric_line, varying, without_metric
from hebbbench.plots.style import COLUMN, SYMBOLS, lay_out, look
from hebbbench.record.schema import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(results: Sequence[Result], x: str | None, metric: str) -> Figure:
    """Mean over seeds with a bar of ± one standard deviation. Where some have no value, as when weights collapsed, the
    point is hollow; where none of a line's has one, what became of them stands at the foot.

    Args:
        x: a numeric axis; if None, the first that the results differ in.

    Raises:
        ResultError: there is no such axis, or no result has the metric.
    """
    from matplotlib import pyplot

    differing = varying(results)
    numeric = [name for name in differing if all(_number(result, name) is not None for result in results)]
    x = x or next(iter(numeric), None)
    if x is None:
        raise ResultError("the results do not differ in any numeric axis. Choose another --kind, or more results.")
    if x not in numeric:
        raise ResultError(f"the results do not differ in a numeric axis '{x}'. {suggestion(x, numeric)}")
    lines: dict[str, list[Result]] = {}
    several = len({result.rule.name for result in results}) > 1
    others = [name for name in differing if name != x]
    for result in sorted(results, key=lambda result: (result.rule.name, [_rank(result.axes.get(n)) for n in others])):
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
        for at, word in _fates(own, x, metric, () if line is None else line.x).items():
            seen.add(at)
            axis.update_datalim([(at, 0.0)])
            foot = {"xycoords": ("data", "axes fraction"), "color": look(index)["color"], "fontsize": 7}
            axis.annotate(word, (at, 0.03), rotation=90, ha="center", va="bottom", **foot)
    if not any(metric in result.metrics for result in results):
        raise without_metric(results, metric)
    lay_out(axis, seen)
    axis.margins(x=0.06)
    axis.autoscale_view()
    axis.set_xlabel(SYMBOLS.get(x, x))
    axis.set_ylabel(f"{metric} (−1–1)" if metric.startswith("alignment.") else metric)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _without(results: Sequence[Result], x: str, metric: str) -> set[float | None]:
    """Where on the axis some result has no value."""
    return {
        _number(result, x) for result in results if (found := result.metrics.get(metric)) is None or found.value is None
    }


def _fates(results: Sequence[Result], x: str, metric: str, drawn: Sequence[float]) -> dict[float, str]:
    """Where on the axis nothing is drawn, and in a word why."""
    found = {}
    for result in results:
        at, measured = _number(result, x), result.metrics.get(metric)
        if at is not None and at not in drawn:
            reason = result.status if measured is None or measured.reason is None else measured.reason
            found[at] = reason.partition(":")[0]
    return found


def _number(result: Result, name: str) -> float | None:
    value = result.axes.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _rank(value: object) -> tuple[float, str]:
    """Numbers by their size, words by their letters."""
    return (float(value), "") if isinstance(value, int | float) else (0.0, str(value))


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
