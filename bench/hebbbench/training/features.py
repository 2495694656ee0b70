"""A frozen network: its answers, the body's normalisation statistics estimated, its features extracted once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from hebbbench.data.batches import Batches
from hebbbench.data.decoding import ahead
from hebbbench.progress import Reporter
from hebbbench.rng import generator
from hebbbench.training.learner import Learner
from hebbbench.training.network import batch_norms
from hebbbench.training.probe import hits

EXTRACT_BATCH = 256
STATISTICS_BATCH = 500


def accuracy(
    learner: Learner, batches: Batches, indices: Tensor, pause: Callable[[], None] = lambda: None, top: int = 1
) -> float:
    """How often the network's own read-out has the label among its `top` first answers, on the indexed samples.

    In inference mode; `pause` is called after every batch.
    """
    correct = torch.zeros((), dtype=torch.int64, device=learner.device)
    for x, labels in ahead(batches, indices.split(EXTRACT_BATCH), world=learner.world):
        correct += learner.world.sum(hits(learner.logits(x), labels, top))
        pause()
    return correct.item() / len(indices)


def estimate_statistics(
    learner: Learner, batches: Batches, indices: Tensor, samples: int, pause: Callable[[], None] = lambda: None
) -> None:
    """Re-estimate the body's batch-norm statistics as the plain average over `samples` training samples.

    The same for every rule, and what makes untrained features comparable: statistics kept while training are an
    average over the last few batches, and an untrained body has none. `pause` is called after every batch.
    """
    norms = batch_norms(learner.model.body)
    if not norms or not samples:
        return
    learner.model.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()  # type: ignore[operator]
        norm.momentum = None  # type: ignore[assignment]
        norm.train()
    order = torch.randperm(len(indices), generator=generator(learner.seed, "statistics"))[:samples]
    with torch.no_grad():
        parts = indices[order.to(indices.device)].split(STATISTICS_BATCH)
        for x, _ in ahead(batches, [part for part in parts if len(part) > 1], world=learner.world):
            learner.model.body(x)
            pause()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    learner.model.eval()


@contextmanager
def statistics_kept(learner: Learner) -> Iterator[None]:
    """Within this context statistics may be re-estimated; behind it the trained ones are back."""
    kept = {name: buffer.clone() for name, buffer in learner.model.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in learner.model.named_buffers():
            buffer.copy_(kept[name])


def extract(
    learner: Learner,
    batches: Batches,
    indices: Tensor,
    reporter: Reporter,
    scratch: Path,
    pause: Callable[[], None] = lambda: None,
) -> Tensor:
    """The frozen body's features of the indexed samples, (n, features) float32.

    They stay on the device if they fill at most half of its free memory, else in main memory, else in a
    memory-mapped file under `scratch` that vanishes with the process. `pause` is called after every batch. Where a
    batch is divided over processes, each ends up with all features.
    """
    features: Tensor | None = None
    parts = indices.split(EXTRACT_BATCH) if len(indices) else []
    for number, (x, _) in enumerate(ahead(batches, parts, world=learner.world)):
        start, rows = number * EXTRACT_BATCH, learner.world.rows(learner.features(x))
        if features is None:
            features = _allocate(len(indices), rows.shape[1], learner.device, scratch)
        features[start : start + len(rows)] = rows
        reporter.advance(len(rows))
        pause()
    if features is None:
        return torch.empty(0, 0, device=learner.device)
    return features


def _allocate(rows: int, columns: int, device: torch.device, scratch: Path) -> Tensor:
    size = rows * columns * 4
    if device.type == "cuda" and size <= torch.cuda.mem_get_info(device)[0] // 2:
        return torch.empty(rows, columns, device=device)
    if size <= _free_memory() // 2:
        return torch.empty(rows, columns)
    scratch.mkdir(parents=True, exist_ok=True)
    path = scratch / f"features-{os.getpid()}-{id(device)}.bin"
    mapped = torch.from_file(str(path), shared=True, size=rows * columns, dtype=torch.float32).view(rows, columns)
    path.unlink()
    return mapped


def _free_memory() -> int:
    """Main memory that can be had without swapping, in bytes; all there is, where the system does not say."""
    known = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf(known) * os.sysconf("SC_PAGE_SIZE")
