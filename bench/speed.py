"""How fast HebbBench is on this machine, as ratios within one run.

    python bench/speed.py [--device cpu] [--rounds 5] [--json speed.json]

Prints the machine's own matrix rate, the seconds to the first result of the quick start, the step of `ghl` and
`softhebb` as a ratio to `bp` on DeepHebb (theory: 4/3 and 2/3; see the note below), `bp` against a plain PyTorch loop
of the same network, and the images per second of the input pipeline. The cases of a comparison take turns within
each round, the order turned round in every other one; a ratio is the median over rounds. `bp again` is the control:
its distance from 1 is the noise. The script refuses to report when other processes hold the cores.

Theory counts passes over the layers: backprop 3 (forward, gradient of the weights, gradient of the activity), GHL 4
(one outer product more), a local rule 2. DeepHebb needs no gradient of the image, so exactly: 2.98, 3.98 and 2.00.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hebbbench import decay, hebb, registry, soft_wta
from hebbbench.cell import cells
from hebbbench.data.batches import Batches
from hebbbench.plasticity.signals import post_rows, pre_of, weight_rows
from hebbbench.training.device import prepare_torch
from hebbbench.training.learner import Learner, build_model

BATCH = 64
SHAPE = (32, 32, 3)
IDLE = 0.9


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


def take_turns(cases: dict[str, Callable[[], None]], rounds: int, wait: Callable[[], None]) -> dict[str, list[float]]:
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


def matrix_rate(device: torch.device, wait: Callable[[], None]) -> float:
    """GFLOP/s of a float32 matrix product of side 2048."""
    a = torch.randn(2048, 2048, device=device)
    seconds = take_turns({"mm": lambda: torch.mm(a, a)}, 5, wait)["mm"]  # type: ignore[dict-item, return-value]
    return 2 * 2048**3 / statistics.median(seconds) / 1e9


def learner_step(rule: str, x: Tensor, labels: Tensor, device: torch.device) -> Callable[[], None]:
    """A step of a rule under cifar10-deephebb with its own recipe, at batch 64."""
    (cell,) = cells(registry.protocol("cifar10-deephebb"), [rule], [0], {})
    learner = Learner(cell, SHAPE, 10, device)
    count = iter(range(10**9))
    return lambda: void(learner.step(x, labels, next(count), 0.0))


def plain_step(x: Tensor, labels: Tensor, device: torch.device) -> Callable[[], None]:
    """The same network and optimizer as `bp`, as anybody would write it."""
    protocol = registry.protocol("cifar10-deephebb")
    model = build_model("deephebb", protocol.architecture.options, SHAPE, 10)
    model = nn.Sequential(model.body, model.head).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return step


def void(_: Any) -> None:
    """Drop a value."""


def ghl_error(device: torch.device) -> float:
    """Largest difference of GHL's Hebbian term from explicit patches, over its largest entry, on one layer."""
    torch.manual_seed(0)
    layer = nn.Conv2d(24, 96, 3, padding=1, bias=False).to(device, memory_format=torch.channels_last)
    x = torch.randn(8, 24, 16, 16, device=device).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        output = layer(x)
        pre, post, weight = pre_of(x, output, layer), post_rows(output, layer), weight_rows(layer.weight)
        y = soft_wta(post, 1.0)
        ours = hebb(y, pre) - decay(y * post, weight)
        rows, wide = pre.rows.double(), y.double()
        explicit = (wide.T @ rows - (wide * post.double()).sum(0)[:, None] * weight.double()) / len(rows)
    return ((ours - explicit).abs().max() / explicit.abs().max()).item()


def pipeline(device: torch.device, wait: Callable[[], None]) -> dict[str, float]:
    """Images per second of batches of 64, with and without crop and flip."""
    source = np.random.default_rng(0)
    images = source.integers(0, 256, (10_000, *SHAPE), dtype=np.uint8)
    labels = source.integers(0, 10, 10_000)
    rates = {}
    for augment in ("none", "crop-flip"):
        batches = Batches(
            images,
            labels,
            device=device,
            mean=[0.5] * 3,
            std=[0.5] * 3,
            layout="image",
            augment=augment,  # type: ignore[arg-type]
        )
        generator = torch.Generator().manual_seed(0)
        parts = torch.randperm(len(batches), generator=generator).to(device).split(BATCH)

        def read(batches: Batches = batches, generator: torch.Generator = generator, parts: Any = parts) -> None:
            for part in parts:
                batches.batch(part, generator)

        rates[augment] = len(batches) / statistics.median(take_turns({"read": read}, 3, wait)["read"])
    return rates


def quick_start() -> float:
    """Wall seconds of the README's run, from starting the program to its end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hebbbench", "run", "--protocol", "digits-mlp", "--rule", "ghl"]
        began = time.perf_counter()
        subprocess.run([*command, "--results", folder, "--cache", folder], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began


def main() -> int:
    """Measure and print; 1 if the machine is too busy to measure on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    share = idle_share()
    if share < IDLE:
        print(f"other processes hold the cores (this one gets {share:.0%} of them): nothing measured", file=sys.stderr)
        return 1
    device = prepare_torch(arguments.device)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    x = torch.randn(BATCH, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (BATCH,), device=device)
    report: dict[str, Any] = {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "idle_share": round(share, 3),
        "matrix_gflops": round(matrix_rate(device, wait), 1),
        "quick_start_seconds": round(quick_start(), 1),
        "ghl_relative_error": ghl_error(device),
    }
    cases = {name: learner_step(name, x, labels, device) for name in ("bp", "ghl", "sign", "softhebb")}
    cases["bp again"] = learner_step("bp", x, labels, device)
    cases["plain PyTorch"] = plain_step(x, labels, device)
    times = take_turns(cases, arguments.rounds, wait)
    report["step_ms"] = {name: round(1000 * statistics.median(seconds), 2) for name, seconds in times.items()}
    report["to_bp"] = {name: round(ratio(times, name, "bp"), 3) for name in cases}
    report["images_per_second"] = {name: round(rate) for name, rate in pipeline(device, wait).items()}
    show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")
    return 0


def show(report: dict[str, Any]) -> None:
    """Print the report as a person reads it."""
    theory = {"bp": 1.0, "ghl": 3.98 / 2.98, "sign": 1.0, "softhebb": 2 / 2.98, "bp again": 1.0, "plain PyTorch": 1.0}
    print(f"{report['device']}, {report['threads']} threads, torch {report['torch']}, ", end="")
    print(f"{report['matrix_gflops']:.0f} GFLOP/s in a float32 matrix product")
    print(f"quick start: {report['quick_start_seconds']:.1f} s from command to result")
    print(f"one step on DeepHebb, batch {BATCH} (GHL's term agrees with explicit patches to ", end="")
    print(f"{report['ghl_relative_error']:.0e}):")
    print(f"  {'':14}{'ms':>8}{'to bp':>8}{'theory':>8}")
    for name, milliseconds in report["step_ms"].items():
        print(f"  {name:14}{milliseconds:8.1f}{report['to_bp'][name]:8.2f}{theory[name]:8.2f}")
    for name, rate in report["images_per_second"].items():
        print(f"input pipeline, augmentation {name}: {rate:,} images/s")


if __name__ == "__main__":
    sys.exit(main())
