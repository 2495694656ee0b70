"""The linear probe: one read-out, the same for every rule, trained on frozen features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hebbbench.progress import Reporter
from hebbbench.rng import generator, torch_seeded
from hebbbench.sections import Probe
from hebbbench.training import optimise
from hebbbench.training.recording import REFUSALS, CudaRecorder, Recorded, named, reason, recorded

SCORE_BATCH = 2000
MANY_CLASSES = 100
"""From so many classes on, the field also reports how often the right one is among the five likeliest."""


@dataclass(frozen=True)
class Labelled:
    """Features (n, F) and their classes (n,)."""

    features: Tensor
    labels: Tensor


def unsaid(text: str) -> None:
    """Nobody is told."""


class LinearProbe:
    """A linear classifier trained by Adam on cross-entropy, with dropout on the features.

    Args:
        spec: the protocol's probe.
        features: number of features; classes: number of classes.
        seed: the cell's; the draws are the purposes "probe", "probe order" and "probe dropout".
        device: where it is trained.
        say: told if steps on a GPU cannot be replayed, and why.
    """

    def __init__(
        self,
        spec: Probe,
        features: int,
        classes: int,
        seed: int,
        device: torch.device,
        say: Callable[[str], None] = unsaid,
    ) -> None:
        self.spec = spec
        self.seed = seed
        self.device = device
        self.say = say
        with torch_seeded(seed, "probe"):
            self.linear = nn.Linear(features, classes)
        self.linear.to(device)
        groups = [{"params": self.linear.parameters(), "base": spec.lr}]
        self.optimizer = torch.optim.Adam(groups, lr=spec.lr, weight_decay=spec.weight_decay)
        self._on_device()
        self.epoch = 0
        self.curve: list[tuple[float, float]] = []

    def rate(self) -> float:
        """The learning rate of the current epoch: halved at each of the spec's fractions of the epochs."""
        return self.spec.lr * 0.5 ** sum(self.epoch >= mark * self.spec.epochs for mark in self.spec.halve_at)

    def train_epoch(self, train: Labelled, pause: Callable[[], None] = lambda: None) -> None:
        """One pass over the training features in a fresh order; `pause` is called after every batch."""
        self._set_rate()
        order = torch.randperm(len(train.labels), generator=generator(self.seed, "probe order", self.epoch))
        source = generator(self.seed, "probe dropout", self.epoch, device=self.device)
        places = order.to(train.features.device), order.to(train.labels.device)  # once, for each copy is waited for
        replay = self._replay(train)
        for at, labelled in zip(*(place.split(self.spec.batch_size) for place in places), strict=True):
            if replay is not None and len(at) == len(replay.at):
                replay.step(at, source)
            else:
                x = train.features.index_select(0, at).to(self.device, non_blocking=True)
                self.descend(x, train.labels[labelled], draws(x, self.spec.dropout, source))
            pause()
        self.epoch += 1

    def descend(self, x: Tensor, labels: Tensor, random: Tensor | None) -> None:
        """One step from features (B, F), which are overwritten, and what `draws` gave for them."""
        self.optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(self.linear(drop(x, self.spec.dropout, random)), labels).backward()
        if self._rates is not None:
            self._rates.set()
        self.optimizer.step()

    def release(self) -> None:
        """Let go of the features that steps were recorded on; the next epoch records them anew."""
        self._replayed: _Replay | None = None

    def _on_device(self) -> None:
        """On a GPU the rate is a number there, and steps are recorded anew."""
        self._rates = optimise.DeviceRates([self.optimizer], self.device) if self.device.type == "cuda" else None
        self.release()

    def _set_rate(self) -> None:
        if self._rates is not None:
            self._rates.factor.fill_(self.rate() / self.spec.lr)
            return
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()

    def _replay(self, train: Labelled) -> _Replay | None:
        """What replays steps on these features; None where they are not on a GPU, or it was not proved the same."""
        if self.device.type != "cuda" or train.features.device.type != "cuda":
            return None
        if self._replayed is None or self._replayed.train is not train:
            self._replayed = _Replay(self, train)
        return self._replayed if self._replayed.recording is not None else None

    @torch.inference_mode()
    def accuracy(self, data: Labelled, top: int = 1) -> float:
        """Fraction of samples whose class is the likeliest, or among the `top` likeliest."""
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        for start in range(0, len(data.labels), SCORE_BATCH):
            x = data.features[start : start + SCORE_BATCH].to(self.device)
            correct += hits(self.linear(x), data.labels[start : start + SCORE_BATCH], top)
        return correct.item() / len(data.labels)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on at the current epoch."""
        return {
            "linear": self.linear.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "curve": self.curve,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.linear.load_state_dict(saved["linear"])
        optimise.take_back(self.optimizer, saved["optimizer"])
        self._on_device()
        self.epoch = saved["epoch"]
        self.curve = [(x, y) for x, y in saved["curve"]]


class _Replay:
    """A probe's step on whole batches of features on the device, recorded and replayed: most of it is launches.

    Attributes:
        train: the features; at: the samples of the next step, (B,).
        recording: None if it is not proved to do what the step does.
    """

    def __init__(self, probe: LinearProbe, train: Labelled) -> None:
        self.train, size, count = train, probe.spec.batch_size, len(train.labels)
        self.at = torch.arange(size, device=probe.device) % count
        source = torch.Generator(probe.device).manual_seed(0)
        self.random = draws(train.features[:1].expand(size, -1), probe.spec.dropout, source)

        def step() -> None:
            x, labels = (part.index_select(0, self.at) for part in (train.features, train.labels))
            probe.descend(x, labels, self.random)

        def moment(first: int) -> None:
            self.at.copy_(torch.arange(first, first + size, device=probe.device) % count)
            self._draw(source.manual_seed(first))

        def tensors() -> dict[str, Tensor]:
            state = probe.state_dict()
            return dict(named("", {"linear": state["linear"], "optimizer": state["optimizer"]}))

        self.recording: Recorded | None = None
        try:
            moments = [partial(moment, 0), partial(moment, size)]
            self.recording = recorded(CudaRecorder(probe.device), step, tensors, moments)
        except REFUSALS as error:
            probe.say(f"  the read-out's steps are not replayed but taken one operation at a time: {reason(error)}")

    def step(self, at: Tensor, source: torch.Generator) -> None:
        """One step on the samples `at`, (B,), with dropout drawn from `source` as ever."""
        self.at.copy_(at)
        self._draw(source)
        if self.recording is not None:
            self.recording.replay()

    def _draw(self, source: torch.Generator) -> None:
        if self.random is not None:
            self.random.random_(-(2**63), None, generator=source)


def hits(logits: Tensor, labels: Tensor, top: int) -> Tensor:
    """How many samples' classes are among the `top` likeliest, a scalar tensor.

    Args:
        logits: (n, classes); labels: class indices (n,).
    """
    if top == 1:
        return (logits.argmax(1) == labels).sum()
    return (logits.topk(top, 1).indices == labels.unsqueeze(1)).sum()


def draws(x: Tensor, probability: float, source: torch.Generator) -> Tensor | None:
    """The random bits that `drop` takes for `x`, int64; None where nothing is dropped.

    Eight entries share one 64-bit draw, because the serial generator, not the arithmetic, is what takes time.
    """
    if round(probability * 256) == 0:
        return None
    words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device)
    return words.random_(-(2**63), None, generator=source)


def drop(x: Tensor, probability: float, random: Tensor | None) -> Tensor:
    """Dropout in place, one byte of `random` an entry: `probability` is rounded to 1/256 (0.5 is exact)."""
    if random is None:
        return x
    threshold = round(probability * 256)
    kept = random.view(torch.uint8)[: x.numel()].view_as(x).ge(threshold)
    return x.mul_(kept).mul_(256 / (256 - threshold))


def standardise(train: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    """Bring features to zero mean and unit variance on the training split, in place; constant ones become 0.

    Returns:
        Mean and scale, (F,) each, to treat later features alike: (x − mean) · scale.
    """
    deviation, mean = torch.std_mean(train, dim=0, correction=0)
    scale = torch.where(deviation > 1e-6 * deviation.max(), 1 / deviation, torch.zeros_like(deviation))
    for features in (train, *others):
        if len(features):
            features.sub_(mean).mul_(scale)
    return mean, scale


def fit(
    probe: LinearProbe,
    train: Labelled,
    validation: Labelled | None,
    reporter: Reporter,
    pause: Callable[[], None] = lambda: None,
) -> None:
    """Train one epoch and put its validation accuracy on the curve; `pause` is called after every batch."""
    probe.train_epoch(train, pause)
    note = ""
    if validation is not None:
        accuracy = probe.accuracy(validation)
        probe.curve.append((probe.epoch, accuracy))
        note = f"validation {100 * accuracy:.1f} %"
    reporter.advance(1, note)
