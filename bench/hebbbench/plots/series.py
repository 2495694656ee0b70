"""Which results a picture shows, and their means and spreads over seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean, stdev

from hebbbench.errors import ResultError, suggestion
from hebbbench.plan import Axes
from hebbbench.record import store
from hebbbench.record.schema import Result
from hebbbench.validation import canonical_json


@dataclass(frozen=True)
class Line:
    """One line of a picture: at each x the mean over seeds, its sample standard deviation (0 for one seed), and n."""

    label: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    seeds: int


def collect(targets: Sequence[str], root: Path) -> list[Result]:
    """The results of protocols (by name, those that count on the board), result files, and folders of them.

    Raises:
        ResultError: a target is none of these, or holds no result.
    """
    found: list[Result] = []
    for target in targets:
        path = Path(target)
        if path.is_file():
            found.append(store.load(path))
        elif path.is_dir():
            found += [item.result for item in store.scan(path) if item.result is not None] or [
                store.load(file) for file in sorted(path.rglob("*.json"))
            ]
        else:
            found += _of_protocol(target, root)
    if not found:
        raise ResultError(f"{', '.join(targets)}: there is no result to draw. Run some cells first.")
    return found


def varying(results: Sequence[Result]) -> list[str]:
    """The axes that the results differ in, in the order of their first appearance."""
    names = dict.fromkeys(name for result in results for name in result.axes)
    return [name for name in names if len({result.axes.get(name) for result in results}) > 1]


def without_metric(results: Sequence[Result], metric: str) -> ResultError:
    """The error that no result has the metric, with the ones there are."""
    known = sorted({name for result in results for name in result.metrics})
    return ResultError(f"no result has the metric '{metric}'. {suggestion(metric, known)}")


def _of_protocol(name: str, root: Path) -> list[Result]:
    from hebbbench.board import sift
    from hebbbench.plan import gather

    sources = gather(root)
    if name not in sources.protocols:
        raise ResultError(f"'{name}' is neither a file, a folder nor a protocol. {suggestion(name, sources.protocols)}")
    own = [result for result in sift(sources).current if result.protocol.name == name]
    if not own:
        raise ResultError(
            f"{root}/ has no result of protocol '{name}' that counts. Run some, or name another --results."
        )
    return own


def at_axes(results: Iterable[Result], fixed: Sequence[str]) -> list[Result]:
    """Those whose axis values are the given ones, name=value.

    Raises:
        ResultError: none is left.
    """
    wanted = dict(text.partition("=")[::2] for text in fixed)
    kept = [r for r in results if all(str(r.axes.get(name)) == value for name, value in wanted.items())]
    if not kept:
        raise ResultError(f"no result has {', '.join(fixed)}.")
    return kept


def points_of(results: Iterable[Result]) -> list[Axes]:
    """The combinations of axis values among the results, in order of their numbers."""
    found = {canonical_json(result.axes): result.axes for result in results}
    return sorted(found.values(), key=lambda axes: [(str(type(v)), v) for _, v in sorted(axes.items())])


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


def curves(results: Iterable[Result], pattern: str) -> dict[str, Line]:
    """Rule and layer → the line of the curve whose name fits the pattern, x in epochs; no layer where all have one.

    Raises:
        ResultError: no result has such a curve.
    """
    results = list(results)
    names = sorted({name for result in results for name in result.curves if fnmatchcase(name, pattern)})
    if not names:
        known = sorted({name for result in results for name in result.curves})
        raise ResultError(
            f"no result has a curve '{pattern}'. Run with --diagnostics. Their curves: {', '.join(known) or 'none'}."
        )
    lines = {}
    for rule in sorted({result.rule.name for result in results}):
        for name in names:
            samples = [(point[0], point[1]) for r in results if r.rule.name == rule for point in r.curves.get(name, [])]
            if samples:
                label = rule if len(names) == 1 else f"{rule}, {name.rpartition('.')[2]}"
                lines[label] = spread(label, samples)
    return lines


def metric_line(label: str, results: Iterable[Result], x: Callable[[Result], float | None], metric: str) -> Line | None:
    """The line of a metric over `x`, which is a number for each result; None if no result has both."""
    samples = []
    for result in results:
        found, place = result.metrics.get(metric), x(result)
        if result.status == "ok" and found is not None and found.value is not None and place is not None:
            samples.append((place, found.value))
    return spread(label, samples) if samples else None
