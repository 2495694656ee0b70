"""How often the units of a network are active, and win, as it is run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hebbbench.metrics.activity import Activity
from hebbbench.metrics.units import active, never_active, seldom_winning, wins
from hebbbench.world import World


class Firing:
    """Counts for each unit of some layers, of the last samples that a frozen network was shown.

    They are kept batch by batch, because nobody says beforehand which samples will have been the last.

    Args:
        body: of the network; it is run for a batch at a time.
        world: which processes a batch is divided over; all then have the counts of the whole batch.
        most: samples that are remembered.

    Attributes:
        seconds: what the counting has cost.
    """

    def __init__(self, body: nn.Module, layers: Sequence[nn.Module], world: World, most: int) -> None:
        self.world, self.most = world, most
        self.seconds = 0.0
        self._batches: deque[tuple[int, dict[int, Tensor]]] = deque()
        self._counts: dict[int, Tensor] = {}
        self._rows: dict[int, int] = {}
        self._positions: dict[int, int] = {}
        self._activity = Activity([body], layers, self._take)
        self._end = body.register_forward_hook(self._close)

    def dead(self, samples: int) -> dict[int, tuple[float, float]]:
        """Index of a layer → share of its units dead by activity, and by wins; a layer that was not run is not there.

        Args:
            samples: the last ones shown, which are looked at in whole batches as far as they are remembered.
        """
        seen = 0
        sums: dict[int, Tensor] = {}
        for count, counts in reversed(self._batches):
            if seen < samples:
                seen += count
                sums = {index: found + sums.get(index, 0) for index, found in counts.items()}
        return {
            index: (never_active(times), seldom_winning(won, seen * self._positions[index]))
            for index, (times, won) in sums.items()
        }

    def stop(self) -> None:
        """Look no more."""
        self._activity.remove()
        self._end.remove()

    def _take(self, index: int, _x: Tensor, _u: Tensor, y: Tensor) -> None:
        began = time.perf_counter()
        self._rows[index] = len(y)
        self._counts[index] = torch.stack([active(y), wins(y)])
        self.seconds += time.perf_counter() - began

    def _close(self, _body: nn.Module, inputs: tuple[Tensor, ...], _output: Any) -> None:
        share, samples = self.world.share, len(inputs[0])
        self._positions = {index: rows // samples for index, rows in self._rows.items()}
        self.world.sum_in_place(list(self._counts.values()))
        self._batches.append((samples if share is None else share.total, self._counts))
        self._counts = {}
        while sum(count for count, _ in self._batches) > self.most:
            self._batches.popleft()
