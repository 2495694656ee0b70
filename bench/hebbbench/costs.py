"""What one training step costs, counted as it runs on made-up inputs, against what this machine can do at best."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hebbbench.backlog import asked_for
from hebbbench.cell import Cell
from hebbbench.data import dataset_spec
from hebbbench.errors import HebbBenchError
from hebbbench.report import point, table
from hebbbench.training.counter import Tally
from hebbbench.training.device import memory, prepare_torch
from hebbbench.training.learner import Learner
from hebbbench.training.network import blank_input
from hebbbench.training.outline import activity
from hebbbench.training.soundness import broken, check_cell
from hebbbench.training.work import PASSES, Work, bandwidth, ceiling, count

EXPLAINED = (
    "GFLOP: operations in products, two a multiply–add. MB: what every operator reads and writes, as if there were no "
    "cache.\nms: the time of these products, and of this traffic, at the best rate seen here:"
)


def cost_page(
    protocol: str, rules: Sequence[str], axes: Sequence[str], batch: int | None, device_name: str | None
) -> str:
    """The cost of a step: layer by layer if one cell is asked for, else a line for each.

    Args:
        protocol, rules, axes: as of `hebbbench run`.
        batch: samples in a step; the recipe's batch size if None.

    Raises:
        HebbBenchError: a name or a value is wrong, or the device does not exist.
    """
    planned = [waiting.cell for waiting in asked_for(protocol, rules, ["0"], list(axes))]
    for cell in planned:
        check_cell(cell)
    device = prepare_torch(device_name)
    counted = [(cell, batch or cell.recipe.training.batch_size) for cell in planned]
    for cell, samples in counted:
        _check_memory(cell, samples, device)
    works = [_work(cell, samples, device) for cell, samples in counted]
    precision = torch.bfloat16 if planned[0].work.precision == "bfloat16" else torch.float32
    rates = ceiling(device, precision), bandwidth(device)
    if len(planned) == 1:
        (cell, samples), (work,) = counted[0], works
        what = " ".join([cell.protocol.name, cell.rule_name, point(cell.axes)]).strip()
        title = f"{what}: one step of {samples} samples takes {_passes(work)} forward passes of the network"
        body = _by_layer(work, rates)
    else:
        title, body = f"{planned[0].protocol.name}: one step of each rule", _by_rule(counted, works, rates)
    best = f"{rates[0] / 1e9:.0f} GFLOP/s in {str(precision).removeprefix('torch.')}, {rates[1] / 1e9:.1f} GB/s"
    return f"{title}\n\n{body}\n\n{EXPLAINED} {best}, {device}."


def _check_memory(cell: Cell, samples: int, device: torch.device) -> None:
    """Refuse a batch that cannot fit into the device's memory, before any of it is allocated."""
    width = 2 if cell.work.precision == "bfloat16" else 4
    each = width * activity(cell.work.architecture.name, cell.recipe.architecture, cell.work.data.dataset)
    there = memory(device)
    if samples * each > there:
        raise HebbBenchError(
            f"{cell}: a batch of {samples} samples needs {samples * each / 1e9:.0f} GB for its input and widest layer "
            f"alone, and {device} has {there / 1e9:.0f} GB. Give a smaller --batch, far below {there // each}."
        )


def _work(cell: Cell, samples: int, device: torch.device) -> Work:
    spec = dataset_spec(cell.work.data.dataset)
    try:
        learner = Learner(cell, spec.shape, spec.classes, device)
        return count(learner, *_stand_in(cell, learner, samples))
    except HebbBenchError:
        raise
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise HebbBenchError(
            f"{cell}: {device} has too little memory for a batch of {samples} samples. Give a smaller --batch."
        ) from error
    except Exception as error:
        raise broken(cell, error) from error


def _stand_in(cell: Cell, learner: Learner, samples: int) -> tuple[Tensor, Tensor]:
    """An input and targets of the right shapes and kinds."""
    spec = dataset_spec(cell.work.data.dataset)
    source = torch.Generator().manual_seed(0)
    x = blank_input(learner.model, spec.shape, samples, "cpu")
    if x.is_floating_point():
        x.normal_(generator=source)
    if learner.model.layout == "image":
        x = x.contiguous(memory_format=torch.channels_last)
    classes = torch.arange(samples) % spec.classes
    targets = torch.randn(samples, spec.classes, generator=source) if cell.work.loss == "mse" else classes
    return x.to(learner.device), targets.to(learner.device)


def _by_layer(work: Work, rates: tuple[float, float]) -> str:
    rows = [
        (layer.name if kind == PASSES[0] else "", kind, *_figures(getattr(layer, kind), rates))
        for layer in work.layers
        for kind in PASSES
        if getattr(layer, kind).bytes
    ]
    whole = Tally(work.step, work.bytes)
    inside = sum((getattr(layer, kind) for layer in work.layers for kind in PASSES), Tally())
    between = Tally(whole.operations - inside.operations, whole.bytes - inside.bytes)
    rows += [("between layers", "and optimizer", *_figures(between, rates)), ("whole", "", *_figures(whole, rates))]
    return table(rows, ["layer", "for", "GFLOP", "MB", "FLOP/byte", "products, ms", "traffic, ms"])


def _by_rule(counted: Sequence[tuple[Cell, int]], works: Sequence[Work], rates: tuple[float, float]) -> str:
    rows = [
        (
            cell.rule_name,
            point(cell.axes),
            samples,
            _passes(work),
            *_figures(Tally(work.step, work.bytes), rates),
        )
        for (cell, samples), work in zip(counted, works, strict=True)
    ]
    heads = ["rule", "at", "batch", "forward passes", "GFLOP", "MB", "FLOP/byte", "products, ms", "traffic, ms"]
    return table(rows, heads)


def _figures(tally: Tally, rates: tuple[float, float]) -> tuple[str, ...]:
    seconds = (part / rate for part, rate in zip(tally, rates, strict=True))
    intensity = _short(tally.operations / tally.bytes) if tally.bytes else "–"
    return _short(tally.operations / 1e9), _short(tally.bytes / 1e6), intensity, *(_short(1e3 * s) for s in seconds)


def _passes(work: Work) -> str:
    return f"{work.step / work.forward:.2f}"


def _short(number: float) -> str:
    """Three digits, and no exponent."""
    return (
        f"{number:.0f}"
        if number >= 100
        else f"{number:.{2 if number < 10 else 1}f}"
        if number >= 0.1
        else f"{number:.2g}"
    )
