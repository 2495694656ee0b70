"""Pictures of tensors that a run saved (`hebbbench run --save-weights`): features, and two updates side by side."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from hebbbench.plots.style import COLUMN
from hebbbench.record.tensors import load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 64
"""Units in a picture of features, at most."""

BLOCK = 40
"""Rows and columns of an update that are shown, at most: more are not told apart in a column."""


def features(path: Path, layer: str | None, units: int = SHOWN) -> Figure:
    """The weights of the first layer as images, each scaled by its own largest magnitude; most-moved units first.

    Of more than `units` units, half shown are those whose weights moved most and half those that moved least (a frame
    parts them), so that dead ones are seen.

    Raises:
        ResultError: the file is none that a run saved, or has no such layer on images.
    """
    import numpy as np
    from matplotlib import pyplot

    saved = load(path)
    name = layer or saved.layers[0]
    rows, first = saved.rows(name, "last"), saved.rows(name, "first")
    images = saved.images(name, rows)
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(first, axis=1)
    turned = np.argsort((rows * first).sum(1) / np.maximum(norms, 1e-30), kind="stable")
    few = len(turned) <= units
    shown = turned if few else np.concatenate([turned[: units // 2], turned[-(units - units // 2) :]])
    across = 8 if len(shown) > 16 else 4
    down = math.ceil(len(shown) / across)
    figure: Figure
    figure, grid = pyplot.subplots(down, across, figsize=(COLUMN, COLUMN * down / across + 0.35), squeeze=False)
    for index, axis in enumerate(grid.flat):
        axis.set_xticks([])
        axis.set_yticks([])
        if index >= len(shown):
            axis.set_visible(False)
            continue
        image = images[shown[index]]
        image = image / max(float(np.abs(image).max()), 1e-30)
        if image.shape[2] == 3:
            axis.imshow(image / 2 + 0.5)
        else:
            axis.imshow(image[..., 0], cmap="PuOr_r", vmin=-1, vmax=1)
        still = not few and index >= units // 2
        for spine in axis.spines.values():
            spine.set(visible=True, color="#D55E00" if still else "0.4", linewidth=0.9 if still else 0.4)
    count = (
        f"{len(turned)} units"
        if few
        else f"{units // 2} most and {len(shown) - units // 2} least turned (framed) of {len(turned)}"
    )
    figure.suptitle(f"{saved.title}\n{name}: {count}", fontsize=7)
    return figure


def updates(path: Path, layer: str | None) -> Figure:
    """The update of the last step beside Hebb's ⟨u xᵀ⟩ for the same batch, rows units, columns inputs.

    Raises:
        ResultError: the file is none that a run saved with --diagnostics, or has no such layer.
    """
    import numpy as np
    from matplotlib import pyplot

    saved = load(path)
    name = layer or saved.layers[-1]
    pair = {"update Δw": saved.rows(name, "update"), "Hebb ⟨u xᵀ⟩": saved.rows(name, "hebb")}
    flat = [matrix.ravel() for matrix in pair.values()]
    norms = np.linalg.norm(flat[0]) * np.linalg.norm(flat[1])
    cosine = float(flat[0] @ flat[1] / norms) if norms else float("nan")
    figure: Figure
    figure, axes = pyplot.subplots(1, 2, figsize=(2 * COLUMN, 2.9), sharey=True)
    for axis, (title, matrix) in zip(axes, pair.items(), strict=True):
        part = matrix[:BLOCK, _busiest(pair["update Δw"])]
        reach = max(float(np.abs(part).max()), 1e-30)
        image = axis.imshow(part / reach, cmap="PuOr_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        axis.set_title(f"{title}, largest magnitude {reach:.2g}")
        axis.set_xlabel("input (those with the largest update)")
    axes[0].set_ylabel("unit")
    figure.colorbar(image, ax=axes, label="share of the largest magnitude")
    figure.suptitle(f"{saved.title}, {name}: cosine over the whole matrix {cosine:.2f}", fontsize=8)
    return figure


def _busiest(matrix: object) -> list[int]:
    """The columns with the largest entries, in their own order."""
    import numpy as np

    largest = np.argsort(-np.abs(np.asarray(matrix)).max(0), kind="stable")[:BLOCK]
    return sorted(int(index) for index in largest)
