"""The device a cell runs on, and how torch is set up for it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from hebbbench.errors import HebbBenchError


def prepare_torch(name: str | None) -> torch.device:
    """The device of that name (CUDA if there is one, else the CPU), with torch set to repeat its bits.

    float32 means float32: TF32 is off. Deterministic algorithms are on wherever torch has them.

    Raises:
        HebbBenchError: the device does not exist on this machine.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = named_device(name)
    with _usable(name):
        torch.empty(0, device=device)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    _keep_freed_memory()
    # Subnormal numbers are zeros: some processors multiply them a hundred times as slowly, and Adam makes whole layers
    # of them where weights decay. Threads that begin later have this from the one that began them.
    torch.set_flush_denormal(True)
    # Filling fresh memory would cost a pass over every tensor; no kernel used here reads what it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
    return device


def named_device(name: str | None) -> torch.device:
    """The device of that name, as in `prepare_torch`, whether or not it exists on this machine.

    Raises:
        HebbBenchError: it is no name of a device that cells run on.
    """
    with _usable(name):
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type not in ("cpu", "cuda"):
        raise HebbBenchError(f"device '{name}' is none that cells run on. Valid: cpu, cuda, cuda:0, cuda:1, ….")
    return device


def check_device(name: str | None) -> None:
    """Refuse what `prepare_torch` refuses, for other processes of this machine: a GPU that is there is not touched.

    Raises:
        HebbBenchError: the device does not exist on this machine.
    """
    device = named_device(name)
    if device.type == "cpu" or (device.index or 0) >= torch.cuda.device_count():
        with _usable(name):
            torch.empty(0, device=device)


@contextlib.contextmanager
def _usable(name: str | None) -> Iterator[None]:
    """Within this context what torch has against a device is told by its name."""
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        raise HebbBenchError(
            f"device '{name}' cannot be used here: {str(error).splitlines()[0].rstrip('.')}. Use --device cpu."
        ) from error


def reset_peak_memory(device: torch.device) -> None:
    """Begin a new measurement of the peak, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Peak bytes since the reset: allocated on the device, or resident in main memory.

    Where main memory's peak cannot be reset (not Linux), it is the peak since the process began.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory(device: torch.device) -> int:
    """Bytes of memory that the device, or the machine, has in all."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _keep_freed_memory() -> None:
    """Have glibc reuse freed activations instead of returning them to the system at every step.

    By default each large tensor is mapped and faulted in anew; keeping the pages was worth 8 % of a step on two
    cores. Other C libraries are left alone.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: serve every size from the heap
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: do not shrink the heap
