"""Randomness without state: every draw's seed is a function of the cell's seed, its purpose and a counter.

So nothing depends on the order in which cells run, on what else drew before, or on where a run was resumed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit seed for one purpose (initialisation, order, augmentation, dropout, rule, probe) and moment."""
    text = "/".join(str(part) for part in (seed, purpose, *counters))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, *counters: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` seeded by `derive`."""
    import torch

    return torch.Generator(device).manual_seed(derive(seed, purpose, *counters))


def seed_torch(seed: int) -> None:
    """Seed torch's global generators: the CPU's, and those of the CUDA devices in use.

    `torch.manual_seed` leaves word, with a traceback, for every kind of device that is not; that takes a hundred times
    as long.
    """
    import torch

    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


@contextmanager
def torch_seeded(seed: int, purpose: str, *counters: int) -> Iterator[None]:
    """Torch's global generator, seeded by `derive` within the context and restored behind it."""
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        seed_torch(derive(seed, purpose, *counters))
        yield
