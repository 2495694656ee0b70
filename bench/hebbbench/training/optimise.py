"""Optimizers and annealing: what turns a rule's direction into a step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

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
    """The optimizer of `parameters`, each with its own rate; the rate is kept as `base` for annealing.

    Those of one rate are a group, and on a GPU a group's plain descent is one pass over its numbers.
    """
    alike: dict[float, list[nn.Parameter]] = {}
    for parameter, lr in zip(parameters, lrs, strict=True):
        alike.setdefault(lr, []).append(parameter)
    groups: list[dict[str, Any]] = [{"params": some, "lr": lr, "base": lr} for lr, some in alike.items()]
    if spec.name == "sgd":
        fused = any(parameter.is_cuda for parameter in parameters) or None
        settings = {"momentum": spec.momentum, "nesterov": spec.nesterov, "weight_decay": spec.weight_decay}
        optimizer = torch.optim.SGD(groups, fused=fused, **settings)  # type: ignore[arg-type]
        if fused and spec.momentum:  # of a group all have a momentum, or none has; one of zeros is none
            for parameter in parameters:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    if spec.name == "adam":
        return torch.optim.Adam(groups, weight_decay=spec.weight_decay)
    return torch.optim.AdamW(groups, weight_decay=spec.weight_decay)


def take_back(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Take back what the `state_dict` of an optimizer on this or another kind of device gave.

    Steps are counted where this optimizer counts them (`capturable`), in main memory unless they are recorded, and they
    are taken as it takes them (`fused`).
    """
    kept = ("capturable", "fused")
    groups = [
        {**group, **{name: mine[name] for name in kept if name in mine}}
        for group, mine in zip(saved["param_groups"], optimizer.param_groups, strict=True)
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


class DeviceRates:
    """The rates of optimizers as numbers on their device, where a recorded step reads them; Adam counts there, too.

    Args:
        optimizers: of one learner. They go back to rates of the host's with `give_back`.
        device: of their parameters.
    """

    def __init__(self, optimizers: list[torch.optim.Optimizer], device: torch.device) -> None:
        self._groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self._fused = [group.get("fused") for group in self._groups]
        self.factor = torch.ones((), device=device)
        for group in self._groups:
            group["lr"] = torch.full((), group["base"], device=device)
            if "capturable" not in group:
                group["fused"] = True  # of torch's ways to descend plainly the one that reads a rate on the device
        if device.type == "cuda":
            for optimizer in optimizers:
                _count_on_device(optimizer)

    def set(self) -> None:
        """Every rate to `factor` of its base; can be recorded."""
        for group in self._groups:
            torch.mul(self.factor, group["base"], out=group["lr"])

    def give_back(self) -> None:
        """Rates are numbers of the host's again."""
        for group, fused in zip(self._groups, self._fused, strict=True):
            group["lr"], group["fused"] = group["base"], fused


def _count_on_device(optimizer: torch.optim.Optimizer) -> None:
    """Have an optimizer that counts its steps do so where a recording can (Adam; plain descent counts nothing)."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
            for parameter in group["params"]:
                state = optimizer.state.get(parameter, {})
                if "step" in state:
                    state["step"] = state["step"].to(parameter.device)
    optimizer._warned_capturable_if_run_uncaptured = True  # a smaller last batch does


def anneal(optimizers: list[torch.optim.Optimizer], law: str, done: float) -> None:
    """Set every rate for the step at fraction `done` of the training: constant, cosine to 0, or linear to 0."""
    factor = annealing(law, done)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * factor


def annealing(law: str, done: float) -> float:
    """The factor of every rate at fraction `done` of the training."""
    return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[law]
