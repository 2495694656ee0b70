"""How much memory one training step of each rule takes above what stands there before it, as a ratio to backprop's.

    python -m benchmarks.memory deephebb ghl float32 64 cpu

prints the bytes of one case, measured in this fresh process: the peak of the device's memory over three steps, less
what the network, its optimizer and the batch hold before the first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks import steps
from hebbbench.training.device import peak_memory, prepare_torch, reset_peak_memory

STEPS = 3
RULES = {"deephebb": ("bp", "ghl", "sign", "softhebb", "plain PyTorch"), "fasthebb": ("bp", "swta_fh", "hpca")}
GOALS = {"ghl": 1.15}
"""The ratio to `bp` that a rule is to stay under."""


def ratios(network: str, precision: str, batch: int, device: torch.device) -> dict[str, float]:
    """Each rule's peak over backprop's, every one measured in a process of its own."""
    peaks = {rule: _ask(network, rule, precision, batch, device) for rule in RULES[network]}
    return {rule: peak / peaks["bp"] for rule, peak in peaks.items()}


def _ask(network: str, rule: str, precision: str, batch: int, device: torch.device) -> int:
    # Freed memory goes back to the system at once; else its peak would be that of a heap full of holes.
    tight = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", network, rule, precision, str(batch), str(device)],
        env={**os.environ, **tight},
        cwd=Path(__file__).parents[1],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return int(found.stdout)


def peak(network: str, rule: str, precision: str, batch: int, device: torch.device) -> int:
    """Bytes that steps of this batch take at most, above what is there before them; a small batch warms up."""
    plain = rule == "plain PyTorch"
    own = None if plain else steps.learner(network, rule, precision, device)
    x = torch.randn(batch, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,), device=device)

    def step(rows: int, number: int) -> None:
        if own is None:
            case(x[:rows], labels[:rows])
        else:
            own.step(x[:rows], labels[:rows], number, 0.0)

    case = steps.plain_step(network, precision, device)
    step(2, 0)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else _resident()
    reset_peak_memory(device)
    for number in range(1, 1 + STEPS):
        step(batch, number)
    return peak_memory(device) - before


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    # As a run computes on a GPU; on a CPU that would keep the freed memory which is to go back to the system.
    on = torch.device(sys.argv[5])
    print(
        peak(
            sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), on if on.type == "cpu" else prepare_torch(str(on))
        )
    )
