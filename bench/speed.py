"""How fast HebbBench is on this machine, as ratios within one run.

    python bench/speed.py [--device cpu] [--threads 2] [--rounds 5] [--batch 64] [--json speed.json]

Prints the machine's own rates of products, convolutions and copies; the seconds to the first step and to the result of
the quick start; the step of each rule as a ratio to `bp` on DeepHebb and FastHebb, in float32 and with products in
bfloat16, beside the work counted in forward passes and what that promises; the memory that steps take above what
stands there before; backprop against a plain PyTorch loop of the same network; the probe on cached features against
one that runs the body; the input pipeline against a DataLoader; image files decoded on one core; and small networks
trained together against a loop over them.

The cases of a comparison take turns within each round, the order turned round in every other one; a ratio is the
median over rounds. `bp again` is the control: its distance from 1 is the noise. The script refuses to report when
other processes hold the cores.

Work counts passes over the layers: backprop 3 (forward, gradient of the weights, gradient of the activity), GHL 4 (one
outer product more), a local rule 2. No gradient of the image is needed, so on DeepHebb exactly 2.98, 3.98 and 2.00.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks import by_kernels, memory, read_out, replayed, start, steps, together
from benchmarks import input as pipeline
from benchmarks.timing import at_once, convolution_rate, copy_rate, idle_share, matrix_rate, ratio, take_turns
from hebbbench import kernels
from hebbbench.training.device import prepare_torch

IDLE = 0.9
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> int:
    """Measure and print; 1 if the machine is too busy to measure on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default=None)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    share = idle_share()
    if share < IDLE:
        print(f"other processes hold the cores (this one gets {share:.0%} of them): nothing measured", file=sys.stderr)
        return 1
    device = prepare_torch(arguments.device)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    x = torch.randn(arguments.batch, 3, 32, 32, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (arguments.batch,), device=device)
    report: dict[str, Any] = {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "batch": arguments.batch,
        "idle_share": round(share, 3),
        "matrix_gflops": {name: round(matrix_rate(device, dtype, wait), 1) for name, dtype in PRECISIONS.items()},
        "convolution_gflops": {
            name: round(convolution_rate(device, dtype, wait, arguments.batch), 1) for name, dtype in PRECISIONS.items()
        },
        "copy_gigabytes": round(copy_rate(device, wait), 1),
        "quick_start_seconds": round(start.quick_start(), 1),
        "first_step_seconds": round(start.first_step(), 1),
        "help_seconds": round(start.help_page(), 2),
        "ghl_relative_error": steps.ghl_error(device),
        "steps": [],
    }
    print(head(report), flush=True)
    report["replayed"] = replayed.speed_ups(arguments.rounds, device, wait) if device.type == "cuda" else {}
    keep(report, arguments.json)
    report["by_kernels"] = by_kernels.speed_ups(arguments.rounds, x, labels, wait) if kernels.in_use(device) else {}
    print(kernel_table(report["by_kernels"]), flush=True)
    keep(report, arguments.json)
    for network in steps.RULES:
        for precision in steps.PRECISIONS:
            cases, work = steps.cases(network, precision, x, labels)
            times = take_turns(cases, arguments.rounds, wait)
            rows = {
                name: {
                    "ms": round(1000 * statistics.median(times[name]) / at_once(device), 3),
                    "to_bp": round(ratio(times, name, "bp"), 3),
                    "forward_passes": round(work[name], 2),
                }
                for name in cases
            }
            report["steps"].append({"network": network, "precision": precision, "rules": rows})
            print(step_table(network, precision, rows), flush=True)
            keep(report, arguments.json)
    report["peak_memory_to_bp"] = [
        {
            "network": network,
            "precision": precision,
            "rules": memory.ratios(network, precision, arguments.batch, device),
        }
        for network in memory.RULES
        for precision in PRECISIONS
    ]
    print(memory_table(report), flush=True)
    keep(report, arguments.json)
    times = take_turns(read_out.cases(x, labels), arguments.rounds, wait)
    report["probe"] = {name: round(ratio(times, name, "cached"), 1) for name in times}
    report["images_per_second"] = {name: round(rate) for name, rate in pipeline.pipeline(device, wait).items()}
    report["input_to_step"] = {
        case: round(part, 4) for case, part in pipeline.shares(arguments.rounds, device, wait).items()
    }
    report["files_per_second_a_core"] = {name: round(rate) for name, rate in pipeline.decode_rates().items()}
    loader = pipeline.loader_rate()
    report["data_loader_images_per_second"] = None if loader is None else round(loader)
    for name, threads in (("together", torch.get_num_threads()), ("together_on_one_thread", 1)):
        factors = together.speed_ups(arguments.rounds, threads, device, wait)
        report[name] = {batch: round(factor, 2) for batch, factor in factors.items()}
    print(tail(report))
    keep(report, arguments.json)
    return 0


def keep(report: dict[str, Any], path: Path | None) -> None:
    """What has been measured so far, in a file: on a lent machine the time may be over before the end."""
    if path is not None:
        path.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n")


def head(report: dict[str, Any]) -> str:
    """What machine it is, and the quick start."""
    measured = {"matrix product": report["matrix_gflops"], "convolution": report["convolution_gflops"]}
    rates = [
        f"{kind} " + ", ".join(f"{rate:.0f} GFLOP/s in {name}" for name, rate in found.items())
        for kind, found in measured.items()
    ]
    return (
        f"{report['device']}, {report['threads']} threads, torch {report['torch']}\n"
        f"{'; '.join(rates)}; copy {report['copy_gigabytes']:.0f} GB/s\n"
        f"quick start: {report['quick_start_seconds']:.1f} s from command to result; "
        f"first step after {report['first_step_seconds']:.1f} s (goal 5); "
        f"--help: {report['help_seconds']:.2f} s (goal 0.3)\n"
        f"GHL's Hebbian term agrees with explicit patches to {report['ghl_relative_error']:.0e}"
    )


def kernel_table(found: dict[str, dict[str, float]]) -> str:
    """What kernels of our own are worth, and what they change."""
    if not found:
        return "\nkernels of our own are skipped: they are for a GPU with Triton"
    rows = [f"| {name} | {case['times']:.2f} | {case['distance']:.0e} |" for name, case in found.items()]
    return "\n".join(
        [
            "",
            "| by kernels of our own | times as fast as by torch's | update differs by |",
            "| --- | ---: | ---: |",
            *rows,
        ]
    )


def step_table(network: str, precision: str, rows: dict[str, dict[str, float]]) -> str:
    """One comparison; `promised` is the ratio of the counted work."""
    words = "rules' outer products in bfloat16" if precision == "mixed" else f"products in {precision}"
    lines = [f"\none step on {network}, {words}"]
    lines.append(f"  {'':14}{'ms':>9}{'to bp':>8}{'promised':>10}{'goal':>7}")
    for name, row in rows.items():
        promised = row["forward_passes"] / rows["bp"]["forward_passes"]
        goal = f"{steps.GOALS[name]:7.2f}" if name in steps.GOALS else ""
        lines.append(f"  {name:14}{row['ms']:9.2f}{row['to_bp']:8.2f}{promised:10.2f}{goal}")
    return "\n".join(lines)


def memory_table(report: dict[str, Any]) -> str:
    """Peak memory of a step over backprop's."""
    lines = [f"\npeak memory of a step above what stands there before it, over bp's, batch {report['batch']}"]
    for part in report["peak_memory_to_bp"]:
        rules = [
            f"{name} {value:.2f}" + (f" (goal {memory.GOALS[name]})" if name in memory.GOALS else "")
            for name, value in part["rules"].items()
        ]
        lines.append(f"  {part['network']}, {part['precision']}: {', '.join(rules)}")
    return "\n".join(lines)


def tail(report: dict[str, Any]) -> str:
    """The probe and the input pipeline."""
    lines = ["\nprobe step on DeepHebb's features, time over that on cached ones"]
    lines += [f"  {name:22}{factor:7.1f}" for name, factor in report["probe"].items()]
    loader = report["data_loader_images_per_second"]
    for name, rate in report["images_per_second"].items():
        beside = f", {rate / loader:.0f} times a DataLoader" if loader and name == "crop-flip" else ""
        lines.append(f"input pipeline, augmentation {name}: {rate:,} images/s{beside}")
    parts = ", ".join(f"{case} {100 * part:.1f} %" for case, part in report["input_to_step"].items())
    lines.append(f"making a step's batch, of the step's time (goal: under 2 %): {parts}")
    files = ", ".join(f"{name} {rate}" for name, rate in report["files_per_second_a_core"].items())
    lines.append(f"JPEG files of 500 × 375 to 224², images/s a core: {files}")
    for batch, factor in report["together"].items():
        goal = together.GOALS[batch]
        alone = report["together_on_one_thread"][batch]
        lines.append(
            f"small networks together, batch {batch}: {factor:.1f} times a loop over them (goal {goal}), "
            f"on one thread {alone:.1f} times"
        )
    for name, found in report["replayed"].items():
        goal = replayed.SMALL[name].goal
        wanted = f" (goal {goal})" if goal else ""
        lines.append(f"{name}: " + (found if isinstance(found, str) else f"replayed {found:.1f} times as fast{wanted}"))
    if not report["replayed"]:
        lines.append("replayed steps are skipped: they are recorded on a GPU alone")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
