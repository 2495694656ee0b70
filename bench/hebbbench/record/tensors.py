"""Tensors beside a result: seed-N.safetensors next to seed-N.json, for pictures. No number on the board comes of it.

Names are LAYER/first, LAYER/last (weights before and after training), and with diagnostics LAYER/update and LAYER/hebb
(of the last step that was looked at). Each is a matrix (out, in) whose columns run over (row, column, channel).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hebbbench.errors import ResultError, suggestion

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"
Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Saved:
    """What a file holds. `shapes`: the image (height, width, channels) of a layer's columns, where they are one."""

    path: Path
    title: str
    tensors: dict[str, Array]
    shapes: dict[str, tuple[int, int, int]]

    @property
    def layers(self) -> list[str]:
        """Names of the layers, in network order."""
        return list(dict.fromkeys(name.rpartition("/")[0] for name in self.tensors))

    def rows(self, layer: str, kind: str) -> Array:
        """A layer's matrix (out, in) of that kind: first, last, update or hebb.

        Raises:
            ResultError: the file does not hold it.
        """
        if layer not in self.layers:
            raise ResultError(f"{self.path} has no layer '{layer}'. {suggestion(layer, self.layers)}")
        found = self.tensors.get(f"{layer}/{kind}")
        if found is None:
            raise ResultError(
                f"{self.path} does not hold '{kind}' of layer '{layer}'. Save it with --diagnostics, too."
            )
        return found

    def images(self, layer: str, rows: Array) -> Array:
        """A layer's rows as images (out, height, width, channels).

        Raises:
            ResultError: the layer does not look at images of one or three channels.
        """
        shape = self.shapes.get(layer)
        if shape is None or shape[2] not in (1, 3):
            raise ResultError(f"{self.path}: the units of layer '{layer}' do not look at images of 1 or 3 channels.")
        return rows.reshape(len(rows), *shape)


def save(
    path: Path, tensors: dict[str, Tensor], title: str, shapes: dict[str, tuple[int, int, int]], cell: str = ""
) -> None:
    """Write tensors (out, in) under names LAYER/KIND, whole or not at all. `cell`: the identity of whose they are.

    Raises:
        ResultError: the folder cannot be written or the disk is full.
    """
    from safetensors.torch import save as to_bytes

    from hebbbench.files import write_atomic
    from hebbbench.validation import canonical_json

    plain = {name: tensor.detach().float().cpu().contiguous().clone() for name, tensor in tensors.items()}
    order = list(dict.fromkeys(name.rpartition("/")[0] for name in tensors))
    metadata = {"title": title, "layers": canonical_json(order), "shapes": canonical_json(shapes), "cell": cell}
    write_atomic(path, to_bytes(plain, metadata))


def identity(path: Path) -> str | None:
    """The identity of the cell whose tensors a file holds; None if it says none, is missing, or is no such file."""
    if not path.exists():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            found: str | None = (file.metadata() or {}).get("cell")
    except (OSError, SafetensorError):
        return None
    return found


def load(path: Path) -> Saved:
    """What a run saved.

    Raises:
        ResultError: the file is missing or is none that a run saved.
    """
    import json

    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            order, shapes = json.loads(metadata["layers"]), json.loads(metadata["shapes"])
            names = sorted(file.keys(), key=lambda name: (order.index(name.rpartition("/")[0]), name))
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ResultError(
            f"{path} is no file of tensors that a run saved. Make one with: hebbbench run … --save-weights."
        ) from error
    if not tensors:
        raise ResultError(f"{path} holds no weights: the run that saved it did not get as far.")
    return Saved(path, metadata.get("title", path.stem), tensors, {name: tuple(s) for name, s in shapes.items()})
