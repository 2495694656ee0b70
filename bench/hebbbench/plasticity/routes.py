"""Which way the outer product of a convolution goes. It is chosen here and nowhere else, and no rule sees it.

All ways give the same ⟨a xᵀ⟩ up to rounding, and which is the fastest depends on the layer's shape, the precision and
the machine by factors. So the first time a shape comes up each way is timed, and the fastest is taken from then on:
the choice is kept in the cache, so a cell that is repeated or resumed on a machine has the same bits.

Not everything is timed. In float32 on a CPU the library's weight gradient was the fastest in every network here, and a
small product is not worth a measurement: both go by the library.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from hebbbench.errors import ResultError
from hebbbench.files import write_atomic

USUAL = "library"
LEAST = 10**8
"""Multiply–adds below which a product goes the usual way."""
MARGIN = 0.8
"""Another way is taken if it needs less than this part of the usual one's time: noise must not choose."""
ROUNDS = 3


class Routes:
    """The choices of this process, and the file in which the machine's are kept.

    Attributes:
        chosen: shape and precision of a product → the way that was the fastest.
        unusual: those of them that products took since `keep`, and that are not the usual one.
    """

    def __init__(self) -> None:
        self.chosen: dict[str, str] = {}
        self.unusual: dict[str, str] = {}
        self._file: Path | None = None

    def keep(self, folder: Path, device: torch.device) -> None:
        """Take the choices made on this machine and device from `folder`, and keep new ones there."""
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu {torch.get_num_threads()}"
        text = f"{name} torch {torch.__version__}"
        self._file = folder / f"{''.join(c if c.isalnum() else '-' for c in text)}.json"
        self.chosen, self.unusual = self._kept(), {}

    def take(self, key: str, work: int, ways: Mapping[str, Callable[[], Tensor]], like: Tensor) -> Tensor:
        """The product, by the way chosen for `key`.

        Args:
            key: shape and precision of the product; work: its multiply–adds.
            ways: each way by name, `USUAL` among them.
            like: a tensor of the product's device and precision.
        """
        if work < LEAST or not timed(like.device, like.dtype):
            return ways[USUAL]()
        way = self.chosen.get(key)
        if way is None:
            if _observed(like.device):
                return ways[USUAL]()
            self.chosen[key] = _fastest(ways, like.device)
            self._save()
            way = self.chosen[key]
        if way != USUAL:
            self.unusual[key] = way
        return ways[way]()

    def _kept(self) -> dict[str, str]:
        if self._file is None:
            return {}
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self._file.read_text(encoding="utf-8"))
            return {str(key): str(way) for key, way in found.items()}
        return {}

    def _save(self) -> None:
        """Add the choices to the file. A folder that cannot be written costs other runs a measurement, no more."""
        if self._file is None:
            return
        # What another process has chosen meanwhile stands: it may be in use there.
        self.chosen = {**self.chosen, **self._kept()}
        with contextlib.suppress(ResultError):
            write_atomic(self._file, (json.dumps(self.chosen, indent=1, sort_keys=True) + "\n").encode(), "--cache")


ROUTES = Routes()
"""This process's routes."""


def timed(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether ways are timed at all for products of this precision there."""
    return device.type != "cpu" or dtype == torch.bfloat16


def _observed(device: torch.device) -> bool:
    """Whether somebody counts operations or records them, so that none may run for a measurement."""
    capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    return capturing or _get_current_dispatch_mode() is not None


def _fastest(ways: Mapping[str, Callable[[], Tensor]], device: torch.device) -> str:
    """The way with the smallest of `ROUNDS` times, the ways taking turns; the usual one if none beats it clearly."""
    best = dict.fromkeys(ways, float("inf"))
    for turn in range(-1, ROUNDS):  # the first turn warms up
        for name, way in ways.items():
            seconds = _seconds(way, device)
            if turn >= 0:
                best[name] = min(best[name], seconds)
    name = min(best, key=lambda way: best[way])
    return name if best[name] < MARGIN * best[USUAL] else USUAL


def _seconds(way: Callable[[], Tensor], device: torch.device) -> float:
    """How long a way takes; infinite if the memory for it is not there."""
    began = time.perf_counter()
    try:
        way()
    except (MemoryError, torch.OutOfMemoryError):
        return float("inf")
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
