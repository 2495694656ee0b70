"""Who looks on at training: what the learner needs of them, without knowing them."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class Onlooker(Protocol):
    """Who looks on at training, and remembers."""

    def state_dict(self) -> dict[str, Any]:
        """What a later process needs to go on."""

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""


class Watch(Onlooker, Protocol):
    """Who looks on at a step (see `hebbbench.training.alignment`)."""

    def begin(self, step: int) -> None:
        """Before the pass."""

    def end(self, x: Tensor, targets: Tensor) -> None:
        """After the pass of a batch, when every update is in `grad`, before the optimizer."""


class Look(Onlooker, Protocol):
    """Who looks at a batch and the update it led to (see `hebbbench.training.observer`)."""

    def see(self, number: int, x: Tensor, labels: Tensor) -> None:
        """When every update is in `grad`, before the optimizer."""
