"""What an ensemble's step works in and with: room for its tensors, and optimizers on stacks of parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hebbbench.sections import Optimizer


class Room:
    """Memory for the products of one step, used again in the next; taking it anew costs as much as some products do.

    Args:
        weights: the stack of each layer, (E, out, in); rows: of the batch.
    """

    def __init__(self, weights: Sequence[Tensor], rows: int) -> None:
        def like() -> list[Tensor]:
            return [weight.new_empty(weight.shape[0], rows, weight.shape[1]) for weight in weights]

        self.potentials, self.activities, self.errors = like(), like(), like()
        self.output = torch.empty_like(self.errors[-1])
        self.descents = [torch.empty_like(weight) for weight in weights]


class StackedOptimizer:
    """SGD, Adam or AdamW as `torch.optim` has them, on a stack (E, …) with rates and decay of each network's own."""

    def __init__(self, specs: list[Optimizer], parameter: Tensor) -> None:
        self.kind, self.momentum, self.nesterov = specs[0].name, specs[0].momentum, specs[0].nesterov
        at = parameter.device
        self.lr = torch.tensor([spec.lr for spec in specs], device=at).view(-1, 1, 1)
        self.decay = torch.tensor([spec.weight_decay for spec in specs], device=at).view(-1, 1, 1)
        self.l1 = torch.tensor([spec.l1 for spec in specs], device=at).view(-1, 1, 1)
        self.penalised, self.decaying = bool(self.l1.any()), bool(self.decay.any())
        self.annealed = 1.0
        self.rate, self.kept = self.lr, 1 - self.lr * self.decay
        self.steps = 0
        self.first = torch.zeros_like(parameter) if self.momentum or self.kind != "sgd" else parameter
        self.second = torch.zeros_like(parameter) if self.kind != "sgd" else parameter
        self.spare = torch.empty_like(parameter)

    def step(self, parameter: Tensor, update: Tensor, annealed: float) -> None:
        """Move `parameter` in place along `update`, which is left as it is: −gradient, for gradient descent."""
        self.steps += 1
        if annealed != self.annealed:
            self.annealed, self.rate = annealed, self.lr * annealed
            self.kept = 1 - self.rate * self.decay
        if self.penalised:
            update = torch.addcmul(update, self.l1, parameter.sign(), value=-1)
        if self.decaying and (self.kind == "adamw" or not (self.momentum or self.kind == "adam")):
            parameter.mul_(self.kept)  # for plain SGD the same as a part of the gradient
        elif self.decaying:
            update = torch.addcmul(update, self.decay, parameter, value=-1, out=self.spare)
        if self.kind == "sgd":
            if self.momentum:
                torch.add(update, self.first, alpha=self.momentum, out=self.first)
                update = torch.add(update, self.first, alpha=self.momentum) if self.nesterov else self.first
            parameter.addcmul_(self.rate, update)
            return
        self.first.lerp_(update, 0.1)
        self.second.mul_(0.999).addcmul_(update, update, value=0.001)
        # The second moment's correction √(1 − 0.999ᵗ) is a factor of the rate and of ε, not one more pass.
        whole = math.sqrt(1 - 0.999**self.steps)
        root = torch.sqrt(self.second, out=self.spare).add_(1e-8 * whole)
        parameter.addcmul_(self.rate * (whole / (1 - 0.9**self.steps)), torch.div(self.first, root, out=root))
