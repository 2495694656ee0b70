"""Kernels for a GPU, in place of a few of torch's that are slow there.

They compute what torch's operations compute. Whoever counts operations, or looks at them, is shown torch's own.
"""

from __future__ import annotations

import importlib
import os
from functools import cache
from importlib import metadata

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

SWITCH = "HEBBBENCH_KERNELS"
"""Environment variable that, set to `off`, leaves everything to torch."""


def in_use(device: torch.device) -> bool:
    """Whether kernels of our own compute what is computed there now."""
    return device.type == "cuda" and available() and _get_current_dispatch_mode() is None


def version() -> str | None:
    """What kernels here are built by; None if there are none."""
    return f"triton {metadata.version('triton')}" if available() else None


@cache
def available() -> bool:
    """Whether kernels can be built here. One is, to see: a GPU may be too old, Triton or a compiler missing."""
    if os.environ.get(SWITCH, "").lower() == "off" or not torch.cuda.is_available():
        return False
    try:
        pair = torch.zeros(2, device="cuda")
        importlib.import_module("hebbbench.kernels.row_kernels").extremes_of_extremes[(1,)](pair, pair, 1, 16)
    except Exception:  # Triton fails in as many ways as it has parts
        return False
    return True
