"""How many of torch's threads make a batch: one, where waking the others takes as long as the work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

FEW = 2**20
"""Numbers of a batch up to which one thread makes it.

Another thread wakes in some 20 µs at each of a batch's passes, and one thread converts 400 000 pixels meanwhile. What a
batch holds does not depend on it: no pass adds anything up.
"""


@contextmanager
def one_for_few(numbers: int) -> Iterator[None]:
    """Within this context torch has one thread if no more than `FEW` numbers are made; behind it what it had before."""
    before = torch.get_num_threads()
    if before == 1 or numbers > FEW:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
