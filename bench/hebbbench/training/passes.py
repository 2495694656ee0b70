"""The pass of a step: how a batch leaves an update in every learning parameter's `grad`.

There is one way for each kind of rule. One that sees a gradient or an output error goes with a pass of the whole
network, forward and backward; a local one with a forward pass, behind which the read-out may learn; a whole-network
procedure with as many passes as it makes itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hebbbench.plasticity.attach import Plasticity
from hebbbench.plasticity.procedure import Procedure
from hebbbench.training.sparsity import Penalty
from hebbbench.world import World


@dataclass
class Pass:
    """A network, and how its rule's update is found.

    Attributes:
        model: with a `body` and a `head`.
        loss: of the network's answers: cross_entropy or mse.
        others: the parameters that the rule does not govern and that follow the true gradient; none if none does.
        mixed: whether products are in bfloat16; weights, competition and sums stay in float32.
    """

    model: Any
    plasticity: Plasticity
    world: World
    loss: str
    others: list[nn.Parameter]
    mixed: bool

    def find_update(self, x: Tensor, labels: Tensor, only: int | None) -> Tensor | None:
        """Leave the negative updates of one batch in `grad`, decay not included.

        Args:
            x: input batch, (N, …); labels: its targets: this process's share, if the batch is divided.
            only: index of the one plastic layer that learns; all if None.

        Returns:
            The mean loss of the whole batch, a scalar tensor on the device, or None for a rule without a task loss.
        """
        raise NotImplementedError

    def activity(self, x: Tensor) -> Tensor:
        """The last hidden activity of the frozen network, (N, …)."""
        output: Tensor = self.model.body(x)
        return output

    def _read_out(self, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The answers, in float32 if products are in bfloat16, and the mean loss of this process's samples."""
        answers = self.model.head(features)
        if self.mixed:
            answers = answers.float()
        return answers, objective(self.loss, answers, targets)

    def _reduced(self, loss: Tensor) -> Tensor:
        """The mean loss of the whole batch, whose gradients the read-out and its like then have."""
        self.world.sum_in_place(gradients(self.others))
        return self.world.mean(loss.detach())

    def _precision(self, x: Tensor) -> AbstractContextManager[Any]:
        return torch.autocast(x.device.type, torch.bfloat16) if self.mixed else nullcontext()


@dataclass
class EndToEnd(Pass):
    """Of a rule that sees a gradient or an output error. `penalty`: a term of the loss beside that of the answers."""

    penalty: Penalty | None = None

    def find_update(self, x: Tensor, labels: Tensor, only: int | None) -> Tensor:
        needs_gradient = self.plasticity.moment == "backward"
        with self.plasticity.learning(labels, x, only):
            with self._precision(x):
                with nullcontext() if needs_gradient else torch.no_grad():
                    features = self.model.body(x)
                logits, loss = self._read_out(features, labels)
            if self.plasticity.wants_error:
                self.plasticity.on_error(output_error(self.loss, logits.detach(), labels))
            self.world.weighted(loss if self.penalty is None else loss + self.penalty.take()).backward()
        return self._reduced(loss)


@dataclass
class Local(Pass):
    """Of a rule that sees its layer alone.

    Attributes:
        trains_readout: whether the other parameters follow the true gradient of the read-out's loss all the same.
        stop_after_last: whether a pass that nothing is read out of may end at the last layer that learns.
    """

    trains_readout: bool = False
    stop_after_last: bool = False

    def find_update(self, x: Tensor, labels: Tensor, only: int | None) -> Tensor | None:
        stop = not self.trains_readout and (self.stop_after_last or only is not None)
        with torch.no_grad(), self.plasticity.learning(labels, x, only, stop), self._precision(x):
            features = self.model.body(x)
        if not self.trains_readout:
            return None
        with self._precision(x):
            _, loss = self._read_out(features, labels)
        self.world.weighted(loss).backward()
        return self._reduced(loss)


@dataclass
class Whole(Pass):
    """Of a `step` rule, which makes its own passes, and whose network may answer by settling."""

    procedure: Procedure

    def find_update(self, x: Tensor, labels: Tensor, only: int | None) -> Tensor | None:
        loss = self.procedure.run(x, labels, self.world)
        self.world.sum_in_place(gradients(self.model.parameters()))
        return loss

    def activity(self, x: Tensor) -> Tensor:
        return self.procedure.features(x) if self.procedure.settles else super().activity(x)


def gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradients there are."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def objective(kind: str, answers: Tensor, targets: Tensor) -> Tensor:
    """The protocol's loss, a scalar: cross-entropy with classes (N,), or mean squared error to targets (N, outputs)."""
    return F.mse_loss(answers, targets) if kind == "mse" else F.cross_entropy(answers, targets)


def output_error(kind: str, answers: Tensor, targets: Tensor) -> Tensor:
    """The gradient of a sample's loss at the network's answers, up to a factor, (N, outputs)."""
    return answers - targets if kind == "mse" else answers.softmax(1) - F.one_hot(targets, answers.shape[1])
