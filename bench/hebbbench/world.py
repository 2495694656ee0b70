"""Several processes at one cell: which part of a batch is this one's, and how each learns what all have found.

Of n processes each takes its part of every batch. Whatever is a mean or a sum over the batch is reduced where it is
formed: outer products and gradients, batch-norm statistics, counts of right answers. So n processes take the step that
one takes with the whole batch, to rounding, and all hold the same weights. Random numbers are drawn for the whole
batch.

What a rule forms itself is reduced by the terms it calls, such as `hebbbench.decay`, which ask `present()`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """This process's samples of a batch of `total`: those from `start` on, before `stop`."""

    start: int
    stop: int
    total: int

    @property
    def count(self) -> int:
        """How many samples."""
        return self.stop - self.start

    @property
    def fraction(self) -> float:
        """Their part of the batch."""
        return self.count / self.total


class World:
    """One process by itself: every batch is its own, and there is nobody to ask.

    Attributes:
        rank: which process this is, from 0; process 0 writes all files. size: how many there are.
        share: this process's part of the batch at hand; None if it has all of it, and nothing is to be put together.
    """

    rank = 0
    size = 1
    share: Share | None = None

    def part(self, samples: int) -> slice:
        """Which of a batch's samples are this process's. Of a batch with fewer samples than processes, all are."""
        return slice(0, samples)

    def begin(self, samples: int) -> slice:
        """`part`, of a batch that is at hand from now on."""
        return self.part(samples)

    def end(self) -> None:
        """No batch is at hand any more."""

    def sum(self, value: Tensor) -> Tensor:
        """The sum of every process's tensor of one shape, each found on its share of the batch at hand."""
        return value

    def sum_in_place(self, values: list[Tensor]) -> None:
        """`sum` of many tensors of one type, at the price of one."""

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the batch at hand, from every process's mean over its share."""
        return value

    def weighted(self, value: Tensor) -> Tensor:
        """What this process's mean contributes to the mean over the batch."""
        return value

    def rows(self, value: Tensor) -> Tensor:
        """The rows of the batch at hand, (B, …), from every process's rows; a sample may have several."""
        return value

    def highest(self, value: int) -> int:
        """The largest of every process's numbers."""
        return value

    def any(self, flag: bool) -> bool:
        """Whether it is so on any process."""
        return bool(self.highest(int(flag)))

    def told(self, find: Callable[[], T]) -> T:
        """What process 0 finds, on every process; the others do not look. An error is raised on every process."""
        return find()

    def prepared(self, find: Callable[[], T]) -> T:
        """What `find` gives on this process, which may use what it left on disk for the first process of its host."""
        return find()

    def failed(self, reason: str) -> str:
        """Make known that this process cannot go on, and return what stopped the first that could not."""
        return reason

    def close(self) -> None:
        """Wait until all have come here, so that none is killed at its last piece of work, and part."""


ALONE = World()


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


_present: ContextVar[World] = ContextVar("_present", default=ALONE)


def present() -> World:
    """The processes that share the rows a rule is shown, while its equation runs; otherwise `ALONE`."""
    return _present.get()


@contextmanager
def shown_shares(world: World) -> Iterator[None]:
    """Within this context `present` is `world`."""
    token = _present.set(world)
    try:
        yield
    finally:
        _present.reset(token)


class Divided(World):
    """One of several processes: how they exchange is left open.

    Args:
        rank, size: as attributes.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size

    def part(self, samples: int) -> slice:
        if samples < self.size:
            return slice(0, samples)
        return slice(*(samples * rank // self.size for rank in (self.rank, self.rank + 1)))

    def begin(self, samples: int) -> slice:
        part = self.part(samples)
        self.share = Share(part.start, part.stop, samples) if samples >= self.size else None
        return part

    def end(self) -> None:
        self.share = None

    def sum(self, value: Tensor) -> Tensor:
        return value if self.share is None else self._total(value)

    def sum_in_place(self, values: list[Tensor]) -> None:
        if self.share is None or not values:
            return
        import torch

        whole = self._total(torch.cat([value.reshape(-1) for value in values]))
        for value, part in zip(values, whole.split([value.numel() for value in values]), strict=True):
            value.copy_(part.view(value.shape))

    def mean(self, value: Tensor) -> Tensor:
        return value if self.share is None else self._total(self.weighted(value))

    def weighted(self, value: Tensor) -> Tensor:
        return value if self.share is None else value * self.share.fraction

    def rows(self, value: Tensor) -> Tensor:
        if self.share is None:
            return value
        total, each = self.share.total, len(value) // self.share.count
        bounds = [total * rank // self.size * each for rank in range(self.size + 1)]
        return self._rows(value, [stop - start for start, stop in pairwise(bounds)])

    def _total(self, value: Tensor) -> Tensor:
        """A new tensor: the sum of every process's, which have one shape."""
        raise NotImplementedError

    def _rows(self, value: Tensor, counts: list[int]) -> Tensor:
        """Every process's rows in the order of processes; `counts` says how many each has."""
        raise NotImplementedError
