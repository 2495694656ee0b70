"""From what was asked for on the command line to files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hebbbench import registry
from hebbbench.errors import ResultError
from hebbbench.plots import accuracy, axis, curves, heatmap, tensors
from hebbbench.plots.series import at_axes, collect
from hebbbench.plots.style import save, styled
from hebbbench.protocol import Protocol
from hebbbench.record.schema import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["accuracy", "axis", "gini", "alignment", "heatmap", "features", "updates"]


@dataclass(frozen=True)
class Request:
    """What to draw; see `hebbbench plot --help`. `output` is a path without ending; None names it by what it shows."""

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
    output: Path | None = None


def draw(asked: Request) -> list[Path]:
    """Draw and write the picture; the paths of its PNG and its SVG.

    Raises:
        ResultError: there is nothing to draw, or the files cannot be written.
        HebbBenchError: matplotlib is not installed.
    """
    with styled():
        figure = _of_tensors(asked) if asked.kind in ("features", "updates") else _of_results(asked)
        named = Path(f"{Path(asked.targets[0]).stem}-{asked.kind}")
        return save(figure, asked.output or named)


def _of_tensors(asked: Request) -> Figure:
    if len(asked.targets) != 1:
        raise ResultError(f"--kind {asked.kind} draws one file of saved weights, not {len(asked.targets)}.")
    path = Path(asked.targets[0])
    return tensors.features(path, asked.layer) if asked.kind == "features" else tensors.updates(path, asked.layer)


def _of_results(asked: Request) -> Figure:
    results = at_axes(collect(asked.targets, asked.root), asked.axes)
    if asked.rules:
        results = [result for result in results if result.rule.name in asked.rules]
        if not results:
            raise ResultError(f"no result is of the rules {', '.join(asked.rules)}.")
    if asked.kind in ("gini", "alignment"):
        return curves.draw(results, asked.kind, asked.curve)
    protocol = _protocol(results)
    metric = asked.metric or (protocol.headline if protocol is not None else "probe.test.accuracy")
    if asked.kind == "heatmap":
        return heatmap.draw(results, asked.x, asked.y, metric)
    if asked.kind == "axis":
        return axis.draw(results, asked.x, metric)
    x = asked.x or next(iter(results[0].axes), "train_seconds")
    return accuracy.draw(results, x, metric, protocol, asked.published)


def _protocol(results: Sequence[Result]) -> Protocol | None:
    """The one protocol of all results, if the registry has it."""
    names = {result.protocol.name for result in results}
    known = names <= set(registry.protocol_names())
    return registry.protocol(next(iter(names))) if len(names) == 1 and known else None
