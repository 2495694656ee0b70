"""A whole step recorded once and replayed: a GPU waits longer for a small step's launches than for its arithmetic.

A recording is a CUDA graph. It does to the same memory what the step did when it was recorded, so nothing in it may
depend on what Python knows: the batch and the factor of all rates come in buffers, the step's noise is added and its
dropout seeded before each replay. A recording is used only after two steps of it, on two batches and at two rates,
have been compared with the same steps taken one operation at a time (`recording`); otherwise, and for a smaller last
batch, steps go on as ever.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hebbbench.training.learner import Learner
from hebbbench.training.optimise import DeviceRates, annealing
from hebbbench.training.recording import REFUSALS, Recorded, Recorder, named, reason, recorded

MOST = 50_000_000
"""Parameters beyond which nothing is recorded: kernels then outlast their launches, and activity is held twice."""


class Replay:
    """Takes a learner's steps, replayed where that is proved to be the same.

    Args:
        learner: of which `can_replay` holds. Its optimizers keep rates and counters on the device from now on.
        say: told once if steps cannot be replayed, and why.

    Attributes:
        replayed: whether the last step was.
    """

    def __init__(self, learner: Learner, recorder: Recorder, say: Callable[[str], None]) -> None:
        self.learner, self.recorder, self.say = learner, recorder, say
        self.replayed = self.refused = False
        self.key: tuple[int, int | None] | None = None
        self.recording: Recorded | None = None
        self.rates = DeviceRates(learner.optimizers, learner.device)

    def step(self, x: Tensor, labels: Tensor, number: int, done: float, only: int | None = None) -> Tensor | None:
        """As `Learner.step`. The loss is overwritten by the next step."""
        rows, self.replayed = len(x), False
        if not self.refused and (self.key is None or only != self.key[1] or rows > self.key[0]):
            self._record(x, labels, number, done, only)
        if self.refused:
            return self.learner.step(x, labels, number, done, only)
        self._begin(number, done)
        if (rows, only) != self.key or self.recording is None:
            return self._whole(x, labels, only)
        self.x.copy_(x)
        self.labels.copy_(labels)
        self.recording.replay()
        self.replayed = True
        return self.recording.made

    def _begin(self, number: int, done: float) -> None:
        """What a step does before its pass, and the factor of its rates."""
        self.learner.prepare(number)
        self.rates.factor.fill_(annealing(self.learner.annealing, done))

    def _whole(self, x: Tensor, labels: Tensor, only: int | None) -> Tensor | None:
        """The rest of a step, with nothing of Python's in it that changes from step to step."""
        loss = self.learner.find_update(x, labels, only)
        self.rates.set()
        self.learner.move(only)
        return loss

    def _record(self, x: Tensor, labels: Tensor, number: int, done: float, only: int | None) -> None:
        """Record the step of this batch's size and prove the recording, or refuse. The learner is left as it was."""
        self.recording, self.key = None, (len(x), only)
        self.x, self.labels = torch.empty_like(x).copy_(x), labels.clone()

        def moment(number: int, done: float, images: Tensor, targets: Tensor) -> None:
            self._begin(number, done)
            self.x.copy_(images)
            self.labels.copy_(targets)

        try:
            self.recording = recorded(
                self.recorder,
                lambda: self._whole(self.x, self.labels, only),
                lambda: dict(named("", self.learner.state_dict())),
                [
                    lambda: moment(number, done, x, labels),
                    lambda: moment(number + 1, 0.5 * done + 0.25, x.roll(1, -1), labels.roll(1, 0)),
                ],
            )
        except REFUSALS as error:
            self.refused = True
            self.rates.give_back()
            self.say(f"  steps are not replayed but taken one operation at a time: {reason(error)}")


def can_replay(learner: Learner) -> bool:
    """Whether it is worth asking if this learner's steps can be replayed: on a GPU, alone, and unobserved."""
    return (
        learner.device.type == "cuda"
        and learner.world.size == 1
        and learner.watch is None
        and learner.observer is None
        and not learner.recomputes
        and sum(parameter.numel() for parameter in learner.model.parameters()) <= MOST
    )
