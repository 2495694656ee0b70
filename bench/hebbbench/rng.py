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


@contextmanager
def torch_seeded(seed: int, purpose: str, *counters: int) -> Iterator[None]:
    """Torch's global generator, seeded by `derive` within the context and restored behind it."""
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derive(seed, purpose, *counters))
        yield
