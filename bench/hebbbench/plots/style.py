"""How every picture looks: legible in a paper's column, in Okabe & Ito's colours, which most eyes tell apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hebbbench.errors import HebbBenchError, ResultError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN = 3.35
"""Inches of a paper's column; a picture of several panels is a page's two columns wide."""

SYMBOLS = {"decay": "weight decay γ", "noise": "parameter noise σ", "rate": "rate η", "l1": "L1 penalty"}
"""What an axis of a protocol is called in a picture, where it is not by its name."""

WIDE = 8
"""From this ratio of the largest to the smallest value above 0 on, an axis is logarithmic."""
CROWDED = 5
"""The most tick labels that stand upright in a column."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))

SETTINGS: dict[str, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "svg.hashsalt": "hebbbench",
    "figure.constrained_layout.use": True,
}


@contextmanager
def styled() -> Iterator[None]:
    """Within this context pictures are made in the house's style, without a screen.

    Raises:
        HebbBenchError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise HebbBenchError(
            "pictures need matplotlib, which is not installed. Install it with: pip install 'hebbbench[plots]'."
        ) from error
    matplotlib.use("agg")
    with matplotlib.rc_context(SETTINGS):
        yield


def panels(count: int, height: float = 2.3) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels that share their axes: one in a column, else two abreast."""
    from matplotlib import pyplot

    across = min(count, 2)
    down = -(-count // across)
    figure, grid = pyplot.subplots(
        down, across, figsize=(COLUMN * across, height * down), sharex=True, sharey=True, squeeze=False
    )
    axes = [axis for row in grid for axis in row]
    for spare in axes[count:]:
        spare.set_visible(False)
    return figure, axes[:count]


def look(index: int) -> dict[str, Any]:
    """Colour, marker and dashes of the line of that index: told apart without colour too, up to 64 lines."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],
        "linestyle": DASHES[index % len(DASHES)],
    }


def lay_out(axis: Axes, values: Iterable[float], *, ticked: bool = True) -> None:
    """Lay x out for these values: logarithmic if they are wide apart, and linear from the least above 0 down to 0.

    Args:
        ticked: with a tick at each value, and no other.
    """
    places = sorted(set(values))
    above = [value for value in places if value > 0]
    if above and above[-1] / above[0] >= WIDE:
        if places[0] > 0:
            axis.set_xscale("log")
        else:
            axis.set_xscale("symlog", linthresh=above[0], linscale=0.5)
    if ticked:
        axis.set_xticks(places, [f"{value:g}" for value in places], rotation=turned(places))
        axis.minorticks_off()


def turned(values: Sequence[float]) -> int:
    """By how many degrees tick labels are turned, so that they do not run into each other."""
    return 45 if len(values) > CROWDED else 0


def label_outer(axes: Sequence[Axes], x: str, y: str) -> None:
    """Axis labels on the outer panels only: they share their axes."""
    for index, axis in enumerate(axes):
        if index + 2 >= len(axes):
            axis.set_xlabel(x)
            axis.tick_params(labelbottom=True)
        if index % 2 == 0:
            axis.set_ylabel(y)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write STEM.png and STEM.svg; the same figure gives the same bytes.

    Raises:
        ResultError: they cannot be written.
    """
    from matplotlib import pyplot

    written = []
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
            path = stem.with_name(stem.name + suffix)
            figure.savefig(path, metadata=metadata)
            written.append(path)
    except OSError as error:
        raise ResultError(
            f"{stem}.* cannot be written: {error.strerror}. Choose another place with --output."
        ) from error
    finally:
        pyplot.close(figure)
    return written
