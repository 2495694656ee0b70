"""Optimizers and annealing: what turns a rule's direction into a step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hebbbench.errors import ProtocolError
from hebbbench.sections import Optimizer


def rates(spec: Optimizer, layers: list[str]) -> list[float]:
    """The learning rate of each plastic layer.

    Raises:
        ProtocolError: a list of rates has another length than the layers.
    """
    if not isinstance(spec.lr, list):
        return [spec.lr] * len(layers)
    if len(spec.lr) != len(layers):
        raise ProtocolError(
            f"optimizer.lr = {spec.lr} has {len(spec.lr)} values for {len(layers)} plastic layers "
            f"({', '.join(layers)}). Give one value, or one a layer."
        )
    return spec.lr


def build(spec: Optimizer, parameters: list[nn.Parameter], lrs: list[float]) -> torch.optim.Optimizer:
    """The optimizer of `parameters`, each with its own rate; the rate is kept as `base` for annealing."""
    groups: list[dict[str, Any]] = [
        {"params": [parameter], "lr": lr, "base": lr} for parameter, lr in zip(parameters, lrs, strict=True)
    ]
    if spec.name == "sgd":
        return torch.optim.SGD(groups, momentum=spec.momentum, nesterov=spec.nesterov, weight_decay=spec.weight_decay)
    if spec.name == "adam":
        return torch.optim.Adam(groups, weight_decay=spec.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=spec.weight_decay)


def take_back(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Take back what the `state_dict` of an optimizer on this or another kind of device gave.

    Steps are counted where this optimizer counts them (`capturable`): in main memory, unless its steps are recorded.
    """
    own = optimizer.param_groups
    groups = [
        {**group, **({"capturable": mine["capturable"]} if "capturable" in mine else {})}
        for group, mine in zip(saved["param_groups"], own, strict=True)
    ]
    optimizer.load_state_dict({**saved, "param_groups": groups})


def shake(parameters: Iterable[nn.Parameter], noise: float, source: torch.Generator) -> None:
    """Add Gaussian noise of standard deviation `noise` to every parameter, drawn on the CPU, in their order."""
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=source).to(parameter) * noise)


def penalise(optimizer: torch.optim.Optimizer, l1: float) -> None:
    """Add the subgradient of l1·Σ|w| to every gradient of an optimizer."""
    if l1:
        for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach().sign(), alpha=l1)


@contextmanager
def shortened(optimizer: torch.optim.Optimizer, factor: Tensor | None) -> Iterator[None]:
    """Within this context an optimizer steps; behind it, its parameters have come `factor` of the way.

    Every optimizer's step is proportional to its rate, so this is the step at `factor` times the rate.

    Args:
        factor: a scalar where the parameters are; None changes nothing.
    """
    if factor is None:
        yield
        return
    moving = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    start = [parameter.detach().clone() for parameter in moving]
    yield
    with torch.no_grad():
        for parameter, before in zip(moving, start, strict=True):
            parameter.copy_(before.lerp(parameter, factor))


def anneal(optimizers: list[torch.optim.Optimizer], law: str, done: float) -> None:
    """Set every rate for the step at fraction `done` of the training: constant, cosine to 0, or linear to 0."""
    factor = annealing(law, done)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * factor


def annealing(law: str, done: float) -> float:
    """The factor of every rate at fraction `done` of the training."""
    return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[law]
