"""A network as whole-network procedures see it: a chain of blocks, each around one linear map.

    h_0 = input,   u_l = w_l prepare_l(h_{l−1}),   y_l = fire_l(u_l),   h_l = reduce_l(y_l),   logits = head(h_L)

`prepare` is what stands before the map (a normalisation and what flattens, or nothing), `fire` the nonlinearity behind
it with the normalisation that stands between the two, if one does, `reduce` what follows (pooling, flattening, dropout,
or nothing).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call

from hebbbench.errors import RuleError

LINEAR = (nn.Linear, nn.Conv2d)
NORMALISING = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
REDUCING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.modules.dropout._DropoutNd)


@dataclass(frozen=True)
class Block:
    """One link of the chain. Called, it takes h_{l−1} (N, …) to h_l (N, …)."""

    name: str
    prepare: nn.Sequential
    map: nn.Module
    fire: nn.Sequential
    reduce: nn.Sequential

    @property
    def nonlinearity(self) -> nn.Sequential:
        """`fire` without a normalisation."""
        return nn.Sequential(*(module for module in self.fire if not isinstance(module, NORMALISING)))

    def potential(self, h: Tensor) -> Tensor:
        """u_l, the linear map's output."""
        u: Tensor = self.map(self.prepare(h))
        return u

    def __call__(self, h: Tensor) -> Tensor:
        out: Tensor = self.reduce(self.fire(self.potential(h)))
        return out


class Chain:
    """The blocks of a network in order, and its read-out.

    Args:
        model: with a `body`, an `nn.Sequential` whose linear maps are its direct children, and a `head`.

    Raises:
        RuleError: the body is no such chain.
    """

    def __init__(self, model: nn.Module) -> None:
        body = model.body
        if not isinstance(body, nn.Sequential):
            raise RuleError(
                f"a rule of the shape `step` needs a chain of layers (an nn.Sequential body); "
                f"{type(model).__name__} has a {type(body).__name__}. Choose a protocol with an MLP, DeepHebb, "
                "FastHebb or VGG."
            )
        self.blocks = _blocks(body)
        self.head: nn.Module = model.head  # type: ignore[assignment]
        self.classes = [module for module in self.head.modules() if isinstance(module, nn.Linear)][-1].out_features

    @torch.no_grad()
    def forward(self, x: Tensor) -> list[Tensor]:
        """The activities [h_0, h_1, …, h_L] of one pass without any gradient, h_0 = x."""
        activities = [x]
        for block in self.blocks:
            activities.append(block(activities[-1]))
        return activities

    @torch.no_grad()
    def slope(
        self, objective: Callable[[Tensor], Tensor], x: Tensor, directions: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """How fast an objective rises as all weights move along given directions, from one pass forward.

        Args:
            objective: of h_L (N, …); a scalar.
            directions: one for each block, in the shape of its weight.

        Returns:
            ∂objective/∂ε at ε = 0 for weights w_l + ε direction_l, a scalar, by forward-mode differentiation; and h_L.

        Raises:
            RuleError: an activation is raised to a power below 1, whose slope at 0 is infinite.
        """
        for block in self.blocks:
            for module in block.fire:
                if getattr(module, "power", 1) < 1:
                    raise RuleError(
                        f"'{block.name}' raises its activation to a power of {module.power}, which has no slope at 0 "
                        "to go along. Choose powers of 1 or more, or activation: relu."
                    )
        with forward_ad.dual_level():
            h = x
            for block, direction in zip(self.blocks, directions, strict=True):
                weight = _dual(block.map.weight.detach(), direction)  # type: ignore[operator]
                h = block.reduce(block.fire(functional_call(block.map, {"weight": weight}, (block.prepare(h),))))
            risen = forward_ad.unpack_dual(objective(h)).tangent
            return risen, forward_ad.unpack_dual(h).primal


def _dual(value: Tensor, tangent: Tensor) -> Tensor:
    """A value that carries how it changes. The first in a process makes torch load its rules, which warns of itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=Warning)
        dual: Tensor = forward_ad.make_dual(value, tangent)
    return dual


def _blocks(body: nn.Sequential) -> list[Block]:
    """Cut before every linear map, or before the normalisation that stands in front of it."""
    parts: list[tuple[str, list[nn.Module], nn.Module, list[nn.Module]]] = []
    behind: list[nn.Module] = []
    for name, module in body.named_children():
        if isinstance(module, LINEAR):
            prepare = behind[_last_norms(behind) if parts else 0 :]
            if parts:
                parts[-1][3].extend(behind[: len(behind) - len(prepare)])
            if isinstance(module, nn.Linear):  # so a rule may leave out what stands before a map, flattening with it
                module.register_forward_pre_hook(lambda _, inputs: (inputs[0].flatten(1),))
            parts.append((name, prepare, module, []))
            behind = []
        elif any(isinstance(inner, LINEAR) for inner in module.modules()):
            raise RuleError(f"a rule of the shape `step` needs a chain of layers; '{name}' holds linear maps inside.")
        else:
            behind.append(module)
    if not parts:
        raise RuleError("a rule of the shape `step` needs at least one linear map in the body.")
    parts[-1][3].extend(behind)
    return [_block(*part) for part in parts]


def _last_norms(modules: list[nn.Module]) -> int:
    """Where the normalisations begin that no nonlinearity follows; the number of modules if there are none."""
    start = len(modules)
    while start and isinstance(modules[start - 1], (*NORMALISING, *REDUCING)):
        start -= 1
    return next((i for i in range(start, len(modules)) if isinstance(modules[i], NORMALISING)), len(modules))


def _block(name: str, before: list[nn.Module], linear: nn.Module, after: list[nn.Module]) -> Block:
    """Cut what is behind a map. A power of a maximum is the maximum of powers: DeepHebb's is of the nonlinearity."""
    last = _last_norms(after)
    cut = next((i for i, module in enumerate(after) if isinstance(module, REDUCING) or i >= last), len(after))
    fire, reduce = after[:cut], after[cut:]
    powers = [module for module in reduce if type(module).__name__ == "Power"]
    fire, reduce = fire + powers, [module for module in reduce if module not in powers]
    return Block(name, nn.Sequential(*before), linear, nn.Sequential(*fire), nn.Sequential(*reduce))
