"""How every picture looks: legible in a paper's column, in Okabe & Ito's colours, which most eyes tell apart."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hebbbench.errors import HebbBenchError
from hebbbench.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN = 3.35
"""Inches of a paper's column; a picture of several panels is a page's two columns wide."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A8A")
"""Grey in place of Okabe & Ito's yellow, which is no colour for a thin line on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))

SETTINGS: dict[str, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "legend.columnspacing": 1.2,
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


def look(index: int) -> dict[str, Any]:
    """Colour, marker and dashes of the line of that index: told apart without colour too.

    No two of 64 are alike, and no two of 32 if they have no markers.
    """
    turn = index + index // len(COLOURS)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[turn % len(MARKERS)],
        "linestyle": DASHES[turn % len(DASHES)],
    }


def handle(index: int, **changes: Any) -> Any:
    """The line of that index as it stands in a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **{**look(index), **changes})


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write STEM.png and STEM.svg, whichever of the two STEM may end in; the same figure gives the same bytes.

    Raises:
        ResultError: they cannot be written.
    """
    from matplotlib import pyplot

    if stem.suffix in (".png", ".svg"):
        stem = stem.with_suffix("")
    written = []
    try:
        for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
            path = stem.with_name(stem.name + suffix)
            picture = io.BytesIO()
            figure.savefig(picture, format=suffix[1:], metadata=metadata)
            write_atomic(path, picture.getvalue(), "--output")
            written.append(path)
    finally:
        pyplot.close(figure)
    return written
