"""Timing on a machine that others may use: cases take turns within a round, and a busy machine is refused."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

Case = Callable[[], object]


def idle_share(seconds: float = 0.4) -> float:
    """The share of two cores' time that two busy threads of this process get: 1 on an idle machine."""
    code = (
        f"import time; e = time.monotonic() + {seconds}\nwhile time.monotonic() < e: pass\nprint(time.process_time())"
    )
    workers = min(2, os.cpu_count() or 1)
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(workers)
    ]
    return sum(float(process.communicate()[0]) for process in running) / (seconds * workers)


def take_turns(cases: dict[str, Case], rounds: int, wait: Callable[[], None]) -> dict[str, list[float]]:
    """Seconds of each case in each round, after one round of warm-up."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(-1, rounds):
        for name in list(cases) if turn % 2 else reversed(list(cases)):
            began = time.perf_counter()
            cases[name]()
            wait()
            if turn >= 0:
                times[name].append(time.perf_counter() - began)
    return times


def ratio(times: dict[str, list[float]], of: str, to: str) -> float:
    """Median over rounds of one case's time over another's."""
    return statistics.median(a / b for a, b in zip(times[of], times[to], strict=True))


def at_once(device: torch.device) -> int:
    """How often a case does what it times: on a GPU often, because waiting for it once takes longer than it."""
    return 20 if device.type == "cuda" else 1


def repeated(call: Callable[[], object], times: int) -> Case:
    """The call, so many times."""
    return lambda: [call() for _ in range(times)]


def matrix_rate(device: torch.device, dtype: torch.dtype, wait: Callable[[], None]) -> float:
    """GFLOP/s of a matrix product of side 2048, or 8192 on a GPU."""
    side, times = 8192 if device.type == "cuda" else 2048, at_once(device)
    a = torch.randn(side, side, device=device, dtype=dtype)
    seconds = take_turns({"mm": repeated(lambda: torch.mm(a, a), times)}, 5, wait)["mm"]
    return times * 2 * side**3 / statistics.median(seconds) / 1e9


def convolution_rate(device: torch.device, dtype: torch.dtype, wait: Callable[[], None], batch: int) -> float:
    """GFLOP/s of DeepHebb's third convolution, 384 to 1536 channels on 8×8, channels last: most of its arithmetic."""
    times = at_once(device)
    layer = torch.nn.Conv2d(384, 1536, 3, padding=1, bias=False).to(device, dtype, memory_format=torch.channels_last)
    x = torch.randn(batch, 384, 8, 8, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        seconds = take_turns({"convolution": repeated(lambda: layer(x), times)}, 5, wait)["convolution"]
    return times * 2 * layer.weight.numel() * 64 * batch / statistics.median(seconds) / 1e9


def copy_rate(device: torch.device, wait: Callable[[], None]) -> float:
    """GB/s of a copy that no cache holds, bytes read and bytes written counted."""
    size = 2**30 if device.type == "cuda" else 2**28
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    seconds = take_turns({"copy": lambda: target.copy_(source)}, 5, wait)["copy"]
    return 2 * size / statistics.median(seconds) / 1e9
