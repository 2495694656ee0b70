"""What can be stacked in an ensemble: networks, and rules that need not be asked for each network by itself.

Linear layers with an elementwise activation, the exact and the direct feedback path, all layers learning jointly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hebbbench.plasticity.rule import Rule
from hebbbench.sections import Training
from hebbbench.training.learner import Learner

ACTIVATIONS: dict[type[nn.Module], tuple[Callable[..., Tensor], Callable[..., Tensor]] | None] = {
    nn.Tanh: (torch.tanh, torch.ops.aten.tanh_backward.grad_input),
    nn.ReLU: (partial(torch.clamp_min, min=0), partial(torch.ops.aten.threshold_backward.grad_input, threshold=0)),
    nn.Sigmoid: (torch.sigmoid, torch.ops.aten.sigmoid_backward.grad_input),
    nn.Identity: None,
}
"""Activation → the function, (u, out=y), and what it makes of an error at its value, (error, y, grad_input=error)."""


def layers_of(model: Any) -> list[tuple[nn.Linear, nn.Module]] | None:
    """The model's linear layers, each with the activation behind it; None if there is anything else in it."""
    found: list[tuple[nn.Linear, nn.Module]] = []
    for module in [*model.body.children(), *model.head.children()]:
        if isinstance(module, nn.Linear):
            found.append((module, nn.Identity()))
        elif type(module) in ACTIVATIONS and found:
            found[-1] = (found[-1][0], module)
        elif not (isinstance(module, nn.Dropout) and module.p == 0):
            return None
    return found


def stackable(learner: Learner, training: Training) -> bool:
    """Whether this learner could be one of an ensemble."""
    return (
        layers_of(learner.model) is not None
        and learner.feedback in (("exact", "direct") if learner.penalty is None else ("exact",))
        and learner.trains_readout == learner.end_to_end
        and not learner.draws
        and training.schedule == "joint"
        and not isinstance(training.optimizer.lr, list)
    )


def elementwise(rule: Rule, shape: torch.Size) -> bool:
    """Whether a rule sees its gradient alone and treats a stack as it treats each gradient in it.

    It is tried on gradients of this shape, (out, in), of either sign, of several sizes, and on none at all, so that a
    rule which asks for the sign of a mean, or for a norm, answers for the stack what it does not for each.
    """
    if rule.signals != ("grad",):
        return False
    one, other = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    probe = torch.stack([one, -one, 1e3 * other, 1e-3 * other, torch.zeros_like(one)])
    return torch.equal(rule.delta(probe), torch.stack([rule.delta(part) for part in probe]))


class _Symbol:
    """Stands for a gradient in a rule's equation: nothing can be done with it but to take its negative."""

    def __init__(self, negative: _Symbol | None = None) -> None:
        self.negative = negative or _Symbol(self)

    def __neg__(self) -> _Symbol:
        return self.negative


def descends(rule: Rule) -> bool:
    """Whether a rule's update is −∂L/∂w, whatever ∂L/∂w is: then nothing is left to compute."""
    gradient: Any = _Symbol()
    try:
        return rule.signals == ("grad",) and rule.delta(gradient) is gradient.negative
    except Exception:  # whatever an equation does that needs numbers
        return False
