"""The path on which errors travel back: what each layer sends to the one before it.

Backprop sends Wᵀδ. The alternatives keep the forward pass, the nonlinearities' derivatives and each layer's own
outer product, and replace only W on the way back, in every linear and convolutional layer, the read-out included:

    exact             Wᵀδ                       backprop
    random            Bᵀδ, B drawn once         feedback alignment, Lillicrap et al. 2016
    uniform_signs     s·sign(W)ᵀδ               uSF, Liao et al. 2016; s is the standard deviation of W's first draw
    fixed_signs       (|R|∘sign(W))ᵀδ           frSF, R drawn once
    batchwise_signs   (|R|∘sign(W))ᵀδ           brSF, R drawn anew at every step
    direct            Bᵀe, e = ∂L/∂logits       direct feedback alignment, Nøkland 2016; one B for each layer's input

Random matrices have the standard deviation of the layer's first weights; direct ones are uniform on ±1/√classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hebbbench.rng import generator

Path = Literal["exact", "random", "uniform_signs", "fixed_signs", "batchwise_signs", "direct"]


def lay(model: nn.Module, path: Path, seed: int) -> None:
    """Lay a feedback path through a model that has a `head`; `exact` leaves it as it is.

    Args:
        path: see the module's table.
        seed: of the random matrices; what is drawn at every step comes from torch's global generator.
    """
    if path == "exact":
        return
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if path == "direct":
        _Direct(model, layers, seed)
    else:
        for index, layer in enumerate(layers):
            _Replaced(layer, path, seed, index)


class _Replaced:
    """One layer whose input gradient comes from another matrix than its weight.

    The layer sees a detached input, so its own weight gets its exact outer product, and its bias the exact sum. Beside
    it runs the same layer with the replacing matrix, less its own value: nothing in the forward pass, all of the
    gradient to the input.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, path: Path, seed: int, index: int) -> None:
        weight = layer.weight.detach()
        self.path = path
        self.scale = weight.std().item()
        drawn = torch.randn(weight.shape, generator=generator(seed, "feedback", index))
        self.random = drawn.to(weight.dtype) * self.scale
        self.attached: Tensor | None = None
        layer.register_forward_pre_hook(self._detach)
        layer.register_forward_hook(self._send, prepend=True)

    def matrix(self, weight: Tensor) -> Tensor:
        """What stands in for the weight on the way back, in its shape."""
        self.random = self.random.to(weight.device)
        if self.path == "random":
            return self.random
        if self.path == "uniform_signs":
            return self.scale * weight.sign()
        if self.path == "batchwise_signs":
            return (torch.randn_like(weight) * self.scale).abs() * weight.sign()
        return self.random.abs() * weight.sign()

    def _detach(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor | None:
        self.attached = inputs[0] if torch.is_grad_enabled() and inputs[0].requires_grad else None
        return None if self.attached is None else inputs[0].detach()

    def _send(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        x, self.attached = self.attached, None
        if x is None:
            return None
        matrix = self.matrix(layer.weight.detach())  # type: ignore[operator]
        beside = _forward(layer, matrix, x)
        return output + (beside - beside.detach())


def _forward(layer: nn.Module, weight: Tensor, x: Tensor) -> Tensor:
    """The layer's linear map with another weight, its hooks left out; no gradient reaches its bias."""
    values = {"weight": weight}
    if layer.bias is not None:
        values["bias"] = layer.bias.detach()  # type: ignore[operator]
    hooks: tuple[Any, Any] = (layer._forward_hooks, layer._forward_pre_hooks)
    layer._forward_hooks, layer._forward_pre_hooks = type(hooks[0])(), type(hooks[1])()
    try:
        output: Tensor = functional_call(layer, values, (x,))
    finally:
        layer._forward_hooks, layer._forward_pre_hooks = hooks
    return output


class _Direct:
    """Every layer's input gets its error straight from the output."""

    def __init__(self, model: nn.Module, layers: list[nn.Linear | nn.Conv2d], seed: int) -> None:
        self.seed = seed
        self.error: Tensor | None = None
        self.matrices: dict[int, Tensor] = {}
        for index, layer in enumerate(layers):
            layer.register_forward_pre_hook(self._redirect(index))
        model.head.register_forward_hook(self._listen)  # type: ignore[union-attr]

    def _listen(self, head: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        if logits.requires_grad:
            logits.register_hook(self._hear)

    def _hear(self, error: Tensor) -> None:
        self.error = error

    def _redirect(self, index: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0].requires_grad:
                inputs[0].register_hook(lambda exact: self._error_at(index, exact))

        return hook

    def _error_at(self, index: int, exact: Tensor) -> Tensor:
        """Bᵀe in the shape of the gradient it replaces."""
        if self.error is None:
            return exact
        classes, features = self.error.shape[1], exact[0].numel()
        if index not in self.matrices:
            self.matrices[index] = direct_matrix(self.seed, index, classes, features).to(exact.device, exact.dtype)
        # A network's last operation may be float32 where products are bfloat16, or the other way round.
        return (self.error.to(exact.dtype) @ self.matrices[index]).view_as(exact)


def direct_matrix(seed: int, index: int, classes: int, features: int) -> Tensor:
    """B of the direct path to the input of layer `index`, (classes, features), uniform on ±1/√classes."""
    drawn: Tensor = torch.rand(classes, features, generator=generator(seed, "feedback", index))
    matrix: Tensor = (2 * drawn - 1) / classes**0.5
    return matrix
