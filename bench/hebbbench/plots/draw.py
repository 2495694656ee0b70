"""From what was asked for on the command line to files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hebbbench.errors import ResultError, suggestion
from hebbbench.plots import axis, cost, curves, heatmap, ranking, scatter, tensors
from hebbbench.plots.collection import Found, collect
from hebbbench.plots.lines import shared_axes
from hebbbench.plots.names import COSTS, quantity
from hebbbench.plots.series import varying
from hebbbench.plots.sheet import settle
from hebbbench.plots.style import save, styled
from hebbbench.protocol import HEADLINES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["accuracy", "axis", "curve", "gini", "alignment", "heatmap", "scatter", "features", "updates"]

TAKES: dict[str, tuple[str, ...]] = {
    "accuracy": ("rules", "axes", "x", "metric", "published"),
    "axis": ("rules", "axes", "x", "metric", "published"),
    "curve": ("rules", "axes", "curve"),
    "gini": ("rules", "axes", "curve"),
    "alignment": ("rules", "axes", "curve"),
    "heatmap": ("rules", "axes", "x", "y", "metric"),
    "scatter": ("rules", "axes", "x", "metric"),
    "features": ("layer",),
    "updates": ("layer",),
}
"""Which options say something to a kind of picture."""
FLAGS = {"rules": "--rule", "axes": "--axis"}
OTHERS = {".jpg", ".jpeg", ".pdf", ".gif", ".webp", ".tif", ".tiff", ".eps", ".ps", ".bmp"}
"""Endings of pictures that are not written."""


@dataclass(frozen=True)
class Request:
    """What to draw; see `hebbbench plot --help`. `output` is a path without ending; in a folder (one that is there,
    or a text that ends in a slash), and if it is None, the picture is named by what it shows."""

    kind: Kind
    targets: Sequence[str]
    root: Path
    rules: Sequence[str] = ()
    axes: Sequence[str] = ()
    x: str | None = None
    y: str | None = None
    metric: str | None = None
    curve: str | None = None
    layer: str | None = None
    published: bool = False
    output: str | Path | None = None


def draw(asked: Request) -> list[Path]:
    """Draw and write the picture; the paths of its PNG and its SVG.

    Raises:
        ResultError: there is nothing to draw, an option does not go with the kind, or the files cannot be written.
        HebbBenchError: matplotlib is not installed.
    """
    for option in ("rules", "axes", "x", "y", "metric", "curve", "layer", "published"):
        if getattr(asked, option) and option not in TAKES[asked.kind]:
            kinds = ", ".join(kind for kind, options in TAKES.items() if option in options)
            flag = FLAGS.get(option, f"--{option}")
            raise ResultError(f"--kind {asked.kind} takes no {flag}: that goes with {kinds}. Leave it out.")
    stem = _stem(asked)
    if stem.suffix.lower() in OTHERS:
        raise ResultError(
            f"--output {asked.output}: pictures are written as PNG and as SVG, not as {stem.suffix}. "
            f"Give the name without an ending: {stem.with_suffix('')}."
        )
    with styled():
        figure = _of_tensors(asked) if asked.kind in ("features", "updates") else _of_results(asked)
        return save(figure, stem)


def _stem(asked: Request) -> Path:
    """The path of the pictures, without ending."""
    named = f"{Path(asked.targets[0]).stem}-{asked.kind}"
    given = str(asked.output or "./")
    return Path(given, named) if given.endswith("/") or Path(given).is_dir() else Path(given)


def _of_tensors(asked: Request) -> Figure:
    if len(asked.targets) != 1:
        raise ResultError(f"--kind {asked.kind} draws one file of saved weights, not {len(asked.targets)}.")
    path = Path(asked.targets[0])
    return tensors.features(path, asked.layer) if asked.kind == "features" else tensors.updates(path, asked.layer)


def _of_results(asked: Request) -> Figure:
    found = collect(asked.targets, asked.root).at(asked.axes).by(asked.rules)
    figure = _chosen(found, asked)
    settle(figure)
    return figure


def _chosen(found: Found, asked: Request) -> Figure:
    if asked.kind in ("curve", "gini", "alignment"):
        return curves.draw(found, asked.kind, asked.curve)
    metric = asked.metric or _headline(found)
    if asked.kind == "heatmap":
        return heatmap.draw(found, asked.x, asked.y, metric)
    if asked.kind == "scatter":
        return _scatter(found, asked.x, metric)
    if asked.kind == "axis":
        return axis.draw(found, asked.x, metric, asked.published)
    return _accuracy(found, asked, metric)


def _scatter(found: Found, x: str | None, metric: str) -> Figure:
    if x is None:
        known = sorted({name for result in found.results for name in result.metrics} - {metric})
        raise ResultError(f"--kind scatter needs with --x the metric that stands to the right: {', '.join(known)}.")
    return scatter.draw(found, x, metric)


def _headline(found: Found) -> str:
    """What the protocols are scored by; of those that are not known, by the read-out.

    Raises:
        ResultError: they are not scored by the same.
    """
    scores = {name: p.headline if (p := found.protocols.get(name)) else HEADLINES[0] for name in found.names}
    if len(set(scores.values())) > 1:
        groups = {metric: [name for name in scores if scores[name] == metric] for metric in scores.values()}
        each = "; ".join(f"{metric}: {', '.join(names)}" for metric, names in groups.items())
        raise ResultError(f"the protocols are not scored by the same metric ({each}). Choose one with --metric.")
    return next(iter(scores.values()))


def _accuracy(found: Found, asked: Request, metric: str) -> Figure:
    """Ranked at one point of the axes, else against the axis or cost that was named, or the axis that varies."""
    if not quantity(metric).is_accuracy:
        known = sorted({n for r in found.results for n in r.metrics if quantity(n).is_accuracy})
        other = f", or an accuracy with --metric: {', '.join(known)}" if known else ""
        raise ResultError(f"{', '.join(found.names)}: {metric} is no accuracy. Draw it with --kind axis{other}.")
    if asked.x is not None and asked.x in COSTS:
        if asked.published:
            raise ResultError(f"no published number says its {asked.x}. Leave out --published, or --x.")
        return cost.draw(found, asked.x, metric)
    shared = shared_axes(found)
    if asked.x is None and not shared:
        return ranking.draw(found, metric, asked.published)
    axes = {name for protocol in found.names for name in varying(found.of(protocol))}
    if asked.x is not None and asked.x not in axes:
        raise ResultError(
            f"the results do not differ in an axis '{asked.x}', and it is no cost. "
            f"{suggestion(asked.x, {*axes, *COSTS})} Without --x the rules are ranked."
        )
    return axis.draw(found, asked.x, metric, asked.published)
