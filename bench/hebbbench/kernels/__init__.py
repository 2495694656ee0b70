"""Kernels for a GPU, in place of a few of torch's that are slow there.

They compute what torch's operations compute. Whoever counts operations, or looks at them, is shown torch's own.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from importlib import metadata

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

SWITCH = "HEBBBENCH_KERNELS"
"""Environment variable that, set to `off`, leaves everything to torch."""


def in_use(device: torch.device) -> bool:
    """Whether kernels of our own compute what is computed there now."""
    return device.type == "cuda" and _get_current_dispatch_mode() is None and available(device)


def product_dtype(x: Tensor) -> torch.dtype:
    """The precision in which torch would take a product with x: autocast's within autocast, else its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def version(device: torch.device) -> str | None:
    """What the kernels of a device are built by; None if there are none."""
    return f"triton {metadata.version('triton')}" if available(device) else None


@cache
def available(device: torch.device) -> bool:
    """Whether kernels can be built for a device. One is, to see: it may be too old, Triton or a compiler missing."""
    if os.environ.get(SWITCH, "").lower() == "off" or device.type != "cuda" or not torch.cuda.is_available():
        return False
    try:
        with torch.cuda.device(device):
            pair = torch.zeros(2, device=device)
            importlib.import_module("hebbbench.kernels.row_kernels").extremes_of_extremes[(1,)](pair, pair, 1, 16)
    except Exception:  # Triton fails in as many ways as it has parts
        return False
    return True
