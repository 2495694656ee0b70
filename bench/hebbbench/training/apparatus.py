"""What one cell is measured with: its data, its device, and what takes things down."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hebbbench.cell import Cell
from hebbbench.data import Dataset, EncodedSplit, Split, dataset_spec, split_indices
from hebbbench.data.batches import Batches, Pairs
from hebbbench.data.decoding import Decoded
from hebbbench.data.whitening import WhitenedBatches, Whitening
from hebbbench.progress import Reporter, duration
from hebbbench.training.checkpoint import Checkpoint
from hebbbench.training.interrupt import TimeLimit
from hebbbench.training.learner import Learner
from hebbbench.training.measured import Measured
from hebbbench.training.network import architecture_layout
from hebbbench.validation import canonical_json
from hebbbench.world import ALONE, World

_whitenings: dict[str, Whitening] = {}
"""The last one that was made, by what it depends on: cells of one protocol share it."""


class Apparatus:
    """What one cell is measured with.

    Args:
        scratch: where features may lie that memory does not hold.
        read_test: whether the test split is opened at the end.
        world: which processes the cell is divided over; whole: whether its rule is shown all rows of a batch.

    Attributes:
        train_indices, validation_indices: of the training split, (n,) on the device.
        pool_indices: of what the rule learns from.
        measured: what has been measured so far.
    """

    def __init__(
        self,
        cell: Cell,
        dataset: Dataset,
        checkpoint: Checkpoint,
        device: torch.device,
        scratch: Path,
        reporter: Reporter,
        read_test: bool,
        diagnostics: bool = False,
        limit: TimeLimit | None = None,
        world: World = ALONE,
        whole: bool = False,
    ) -> None:
        self.cell = cell
        self.dataset = dataset
        self.checkpoint = checkpoint
        self.device = device
        self.scratch = scratch
        self.reporter = reporter
        self.read_test = read_test
        self.diagnostics = diagnostics
        self.limit = limit
        self.world = world
        self.whole = whole
        self.measured = Measured(processes=world.size)
        train, validation = split_indices(dataset.train.labels, cell.work.data.validation)
        self.train_indices = torch.as_tensor(train, device=device)
        self.validation_indices = torch.as_tensor(validation, device=device)
        # What the rule learns from: the training split, unless it sees no label and there are images without.
        self.pool_indices = self.train_indices
        if dataset.unlabelled is not None:
            self.pool_indices = torch.arange(len(dataset.unlabelled), device=device)

    def learner(self) -> Learner:
        """The cell's network as it is drawn, with its rule."""
        return Learner(
            self.cell, self.dataset.shape, self.dataset.classes, self.device, world=self.world, whole=self.whole
        )

    def scores_epochs(self, learner: Learner) -> bool:
        """Whether the network of every epoch is scored on the test split, once that is open."""
        return self.cell.work.published_epoch is not None and self.read_test and learner.end_to_end

    def keeper(self, learner: Learner, passed: int) -> Callable[[int], None] | None:
        """What keeps the learner's network behind an epoch, if every one is to be scored.

        Args:
            passed: epochs that are behind it; without any, it begins anew.
        """
        kept = self.checkpoint.epochs
        if not passed:
            kept.remove()
        if not self.scores_epochs(learner):
            return None
        if gone := kept.missing(passed):
            self.reporter.say(
                f"  the network after epoch {gone[0]} is no longer in the cache, so the best test epoch will not be "
                "known; --force begins anew"
            )
        return partial(kept.keep, learner.model)

    def batches(self, split: Split | EncodedSplit) -> Any:
        """Batches of a split on the device, as the protocol has them: `Batches`, or what has its methods."""
        data = self.cell.work.data
        if isinstance(split, Split) and dataset_spec(self.dataset.name).teacher is not None:
            return Pairs(split.images, split.labels, self.device)
        form: dict[str, Any] = {"device": self.device, "mean": data.mean, "std": data.std}
        form |= {"layout": architecture_layout(self.cell.work.architecture.name), "augment": data.augment}
        if isinstance(split, EncodedSplit):
            return Decoded(split, self.dataset.shape[0], **form)
        plain = Batches(split.images, split.labels, **form)
        if data.whiten is None or isinstance(self.dataset.train, EncodedSplit):
            return plain
        return WhitenedBatches(plain, self._whitening(self.dataset.train, data.whiten))

    def _whitening(self, train: Split, smoothing: float) -> Whitening:
        """How the cell's images are whitened, from the training split less what is held out; made once a process."""
        data = self.cell.work.data
        key = canonical_json([self.dataset.identity, data.validation, smoothing, data.mean, data.std, str(self.device)])
        if key not in _whitenings:
            began = time.monotonic()
            plain = Batches(train.images, train.labels, device=self.device, mean=data.mean, std=data.std, layout="flat")
            _whitenings.clear()
            _whitenings[key] = Whitening(plain, self.train_indices, smoothing)
            self.reporter.say(f"  whitening found in {duration(time.monotonic() - began)}")
        return _whitenings[key]
