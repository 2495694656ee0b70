"""The read-out as a paper ran it, beside the protocol's own: best test accuracy, chosen with the test split in hand.

A number to lay beside the paper's and nothing else. It ranks nothing and no recipe is searched with it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from hebbbench.progress import Reporter
from hebbbench.sections import Probe, PublishedProbe
from hebbbench.training.probe import Labelled, LinearProbe, unsaid


class PublishedReadout:
    """Trains the published read-out, keeps it as it was after every epoch, and scores all of them when it may."""

    def __init__(
        self, spec: PublishedProbe, train: Labelled, classes: int, seed: int, say: Callable[[str], None] = unsaid
    ) -> None:
        self.spec = spec
        probe = Probe(
            epochs=spec.epochs,
            batch_size=spec.batch_size,
            lr=spec.lr,
            dropout=spec.dropout,
            halve_at=[],
            standardize=False,
            statistics_samples=0,
        )
        self.probe = LinearProbe(probe, train.features.shape[1], classes, seed, train.labels.device, say)
        self.train = Labelled(self._normalised(train.features), train.labels)
        self.epochs: list[dict[str, Tensor]] = []

    def fit(self, reporter: Reporter, pause: Callable[[], None], keep: Callable[[dict[str, Any]], None]) -> None:
        """Train for all epochs left; `pause` is called after every batch, `keep` with the state after every epoch."""
        reporter.phase("published read-out", self.spec.epochs, self.probe.epoch)
        while self.probe.epoch < self.spec.epochs:
            self.probe.train_epoch(self.train, pause)
            self.epochs.append({name: value.clone() for name, value in self.probe.linear.state_dict().items()})
            keep(self.state_dict())
            reporter.advance()
        self.probe.release()
        del self.train

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on at the current epoch."""
        return {"probe": copy.deepcopy(self.probe.state_dict()), "epochs": list(self.epochs)}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.probe.load_state_dict(copy.deepcopy(saved["probe"]))
        device = self.probe.device
        self.epochs = [{name: value.to(device) for name, value in state.items()} for state in saved["epochs"]]

    def best(self, test: Labelled) -> tuple[float, int]:
        """The largest accuracy on the test split over the epochs, and its epoch (the first of equals)."""
        held_out = Labelled(self._normalised(test.features), test.labels)
        scores = []
        for state in self.epochs:
            self.probe.linear.load_state_dict(state)
            scores.append(self.probe.accuracy(held_out))
        return max(scores), scores.index(max(scores)) + 1

    def _normalised(self, features: Tensor) -> Tensor:
        return F.layer_norm(features, features.shape[1:]) if self.spec.layer_norm else features
