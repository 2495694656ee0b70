"""Whole-network procedures: running a `step` rule on a network, and reading its features.

The rule returns a scalar; one backward call lays its slope on every parameter it depends on. Whether that call ever
crosses from one layer to another is the rule's affair, and is measured (`hebbbench check`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hebbbench.errors import RuleError
from hebbbench.plasticity.chain import Chain
from hebbbench.plasticity.rule import Rule, state_of
from hebbbench.world import ALONE, World


class Procedure:
    """A `step` rule with the network it runs on and its own tensors.

    Args:
        rule: of the shape `step`.
        model: with a `body` that is a chain (see `Chain`) and a `head`.

    Raises:
        RuleError: the body is no chain.
    """

    def __init__(self, rule: Rule, model: nn.Module) -> None:
        self.rule = rule
        self.model = model
        self.network = Chain(model)
        self.settles = type(rule).infer is not Rule.infer
        self.reset()

    def reset(self) -> None:
        """The rule's own tensors as at the start."""
        with torch.no_grad():
            self.state = state_of(self.rule, "begin", self.rule.begin(self.network))

    def run(self, x: Tensor, labels: Tensor, world: World = ALONE) -> Tensor | None:
        """Lay the procedure's update, negated, in the parameters' `grad`.

        Args:
            x: input, (N, …); labels: (N,).
            world: which processes the batch is divided over; `grad` is this one's contribution to the whole's.

        Returns:
            The mean cross-entropy of the first answer the read-out gave, a scalar; None if it gave none.

        Raises:
            RuleError: the rule returned something else than a scalar that depends on the weights.
        """
        signals: dict[str, Any] = {"network": self.network, "input": x, "labels": labels, "state": self.state}
        with torch.enable_grad(), self._first_calls() as answers, self._one_mask():
            objective = self.rule.step(**{name: signals[name] for name in self.rule.signals})
            if not isinstance(objective, Tensor) or objective.dim() or not objective.requires_grad:
                raise RuleError(
                    f"rule {type(self.rule).__name__}: step must return a scalar tensor that depends on the weights."
                )
            world.weighted(objective).backward()
        return world.mean(F.cross_entropy(answers[0], labels)) if answers else None

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """What the read-out and the probe see, (N, …)."""
        return self.rule.infer(self.network, x).detach()

    @contextmanager
    def _one_mask(self) -> Iterator[None]:
        """What dropout leaves out, it leaves out in every pass of a step: passes are compared with each other."""
        masks: dict[tuple[nn.Module, torch.Size], Tensor] = {}

        def dropped(module: nn.Module, alone: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
            if (module, x.shape) not in masks:
                masks[module, x.shape] = alone(torch.ones_like(x))
            return x * masks[module, x.shape]

        dropouts = [module for module in self.model.modules() if _scales(module) and module.training]
        own = {module: module.__dict__.get("forward") for module in dropouts}  # of a batch that is divided
        for module in dropouts:
            module.forward = partial(dropped, module, module.forward)
        try:
            yield
        finally:
            for module, forward in own.items():
                if forward is None:
                    del module.forward
                else:
                    module.forward = forward

    @contextmanager
    def _first_calls(self) -> Iterator[list[Tensor]]:
        """Only a normalisation's first call in a step counts for its running statistics; the others are phases.

        Yields the read-out's first answer (N, classes), once it is there.
        """
        answers: list[Tensor] = []
        norms = [module for module in self.model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
        momenta = [norm.momentum for norm in norms]

        def counted(norm: nn.Module, *_: object) -> None:
            norm.momentum = 0.0  # type: ignore[assignment]

        def answered(_head: nn.Module, _inputs: object, logits: Tensor) -> None:
            if not answers:
                answers.append(logits.detach())

        handles = [norm.register_forward_hook(counted) for norm in norms]
        handles.append(self.network.head.register_forward_hook(answered))
        try:
            yield answers
        finally:
            for handle in handles:
                handle.remove()
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


def _scales(module: nn.Module) -> bool:
    """Whether a module is a dropout whose mask is a factor, as AlphaDropout's is not."""
    alpha = isinstance(module, nn.AlphaDropout | nn.FeatureAlphaDropout)
    return isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0 and not alpha
