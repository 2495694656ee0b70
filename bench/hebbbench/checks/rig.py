"""A small network trained by the real `Learner`, whose every signal can be held, replaced or recorded.

The probes of the card and the checks of behaviour run here, so that what they say holds for the harness that makes
the results, whatever shape a rule has. The network is a perceptron without normalisation:

    x (N, 30) → fc1 (40) → tanh → fc2 (24) → tanh → fc3 (24) → tanh → head (3)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from hebbbench.checks.network import CLASSES, INPUTS, SAMPLES, WIDTHS, build_learner, toy_cell
from hebbbench.checks.spy import Call, Spy
from hebbbench.plasticity.rule import Rule
from hebbbench.plasticity.signals import weight_rows

PASSES = 2
HEAD = "head.linear.weight"
TARGET = 1
"""Index of the layer the probes look at: it has a plastic layer on either side, and more inputs than units."""


@dataclass(frozen=True)
class Scene:
    """What the network meets in each of a few passes. The weights are laid down anew before every pass.

    Args:
        x: the input (N, inputs) of each pass; labels: its classes (N,).
        weights: replacements of parameters, by name.
        held_inputs: what a plastic layer is given in each pass, whatever arrives there; by the layer's index.
        held_outputs: what the rest of the network is given in each pass in place of a layer's output.
        added: noise laid on a plastic layer's input in each pass.
        misled: index of a plastic layer that is given noise in place of the gradient by its potential.
    """

    x: list[Tensor]
    labels: list[Tensor]
    weights: dict[str, Tensor] = field(default_factory=dict)
    held_inputs: dict[int, list[Tensor]] = field(default_factory=dict)
    held_outputs: dict[int, list[Tensor]] = field(default_factory=dict)
    added: dict[int, list[Tensor]] = field(default_factory=dict)
    misled: int | None = None

    def but(self, **changes: Any) -> Scene:
        """The same scene with some parts replaced."""
        return replace(self, **changes)


@dataclass
class Played:
    """What a scene brought about.

    `changes[p][l]` is the change of plastic layer l's weight, constraint included, in pass p, (out, in);
    `inputs` and `outputs` are what the layer saw and sent in that pass. `errors_sent_down` says that a gradient left
    some layer, or the read-out, through its weights towards the one before; `crossed_layers`, that one met the weights
    of an earlier layer on its way.
    """

    changes: list[list[Tensor]]
    inputs: list[list[Tensor]]
    outputs: list[list[Tensor]]
    calls: list[Call]
    forwards: int
    reached_by_autograd: bool
    early: bool
    errors_sent_down: bool = False
    crossed_layers: bool = False


class Rig:
    """One rule on the network, at the rule's default hyper-parameters unless others are given.

    Args:
        rule: a registered name or the path of a rule file.
        hyperparameters: instead of the defaults.
        widths: units of each plastic layer.
        dtype: of weights and activity.
        rate: learning rate; 1 makes a step the update itself.

    Raises:
        HebbBenchError: the rule cannot be built.
    """

    def __init__(
        self,
        rule: str,
        hyperparameters: dict[str, Any] | None = None,
        *,
        widths: Sequence[int] = WIDTHS,
        inputs: int = INPUTS,
        classes: int = CLASSES,
        dtype: torch.dtype = torch.float64,
        rate: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.inputs, self.classes, self.dtype = inputs, classes, dtype
        cell = toy_cell(rule, hyperparameters or {}, tuple(widths), rate, seed)
        self.learner = build_learner(cell, inputs, classes, dtype)
        self.layers = self.learner.plasticity.layers
        self.start = {name: value.detach().clone() for name, value in self.learner.model.named_parameters()}

    def scene(self, passes: int = PASSES, samples: int = SAMPLES, seed: int = 0) -> Scene:
        """A generic scene: Gaussian inputs and classes in turn."""
        source = torch.Generator().manual_seed(seed)
        shape = (samples, self.inputs)
        x = [torch.randn(shape, generator=source, dtype=torch.float64).to(self.dtype) for _ in range(passes)]
        return Scene(x, [(torch.arange(samples) + i) % self.classes for i in range(passes)])

    def redrawn(self, names: Sequence[str], seed: int = 1) -> dict[str, Tensor]:
        """Other weights of the same size for the named parameters."""
        source = torch.Generator().manual_seed(seed)
        return {
            name: torch.randn(self.start[name].shape, generator=source, dtype=torch.float64).to(self.dtype)
            * self.start[name].std().clamp_min(0.1)
            for name in names
        }

    def certain(self, scene: Scene, played: Played, wrong: Sequence[int] = ()) -> Scene:
        """The scene before a read-out that is sure of its answers: right in every pass, but for the first few samples.

        Args:
            played: what the scene brought about.
            wrong: how many samples have another label in each pass; none if empty.
        """
        weight = 1e4 * self.start[HEAD]
        labels = [
            (outputs[-1].tanh() @ weight.T + self.start["head.linear.bias"]).argmax(1) for outputs in played.outputs
        ]
        for given, count in zip(labels, wrong, strict=False):
            given[:count] = (given[:count] + 1) % self.classes
        return scene.but(labels=labels, weights={**scene.weights, HEAD: weight})

    def name(self, layer: int) -> str:
        """The parameter name of a plastic layer's weight."""
        return f"{self.layers[layer].name}.weight"

    def later(self, layer: int) -> list[str]:
        """The parameter names of all that comes after a plastic layer, the read-out included."""
        after = [self.name(index) for index in range(layer + 1, len(self.layers))]
        return [*after, HEAD, "head.linear.bias"]

    def play(self, scene: Scene) -> Played:
        """Let the rule learn through the scene, with fresh state.

        A rule's own draws come from torch's global generator, which is seeded before each call: two scenes that
        differ in one thing differ in nothing else.
        """
        played = Played([], [], [], [], 0, False, True)
        for layer in self.layers:
            layer.state = layer.rule.init(weight_rows(self.start[f"{layer.name}.weight"]).clone())
        if self.learner.procedure is not None:
            self.learner.procedure.reset()
        with torch.random.fork_rng(devices=[]), self._spied(played.calls):
            for number, (x, labels) in enumerate(zip(scene.x, scene.labels, strict=True)):
                self._lay(scene.weights)
                before = [layer.weight.clone() for layer in self.layers]
                with self._staged(scene, number, played):
                    self.learner.step(x.clone(), labels.clone(), number, 0.0)
                played.changes.append([layer.weight - old for layer, old in zip(self.layers, before, strict=True)])
        self._lay({})
        return played

    def states(self) -> list[dict[str, Tensor]]:
        """The rule's own tensors: of each layer, and of a whole-network procedure."""
        procedure = self.learner.procedure
        return [*(layer.state for layer in self.layers), *([procedure.state] if procedure is not None else [])]

    @torch.no_grad()
    def _lay(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self.learner.model.named_parameters():
            parameter.copy_(weights.get(name, self.start[name]))

    @contextmanager
    def _spied(self, calls: list[Call]) -> Iterator[None]:
        rules = [layer.rule for layer in self.layers]
        for index, layer in enumerate(self.layers):
            layer.rule = cast(Rule, Spy(layer.rule, index, calls))
        try:
            yield
        finally:
            for layer, rule in zip(self.layers, rules, strict=True):
                layer.rule = rule

    @contextmanager
    def _staged(self, scene: Scene, number: int, played: Played) -> Iterator[None]:
        """Hold and record signals, and watch when updates come."""
        handles = []
        played.inputs.append([])
        played.outputs.append([])

        def entering(index: int) -> Callable[..., Any]:
            def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
                x = args[0]
                played.forwards += index == 0
                self._watch_descent(index, x, played)
                if index and self.layers[index - 1].module.weight.grad is None:
                    played.early = False
                if index in scene.held_inputs:
                    x = _Swap.apply(x, scene.held_inputs[index][number])
                if index in scene.added:
                    x = x + scene.added[index][number]
                played.inputs[-1].append(x.detach().clone())
                return (x,)

            return hook

        def leaving(index: int) -> Callable[..., Any]:
            def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
                played.outputs[-1].append(output.detach().clone())
                played.reached_by_autograd |= output.requires_grad
                if index == scene.misled and output.requires_grad:
                    output.register_hook(_noise_like)
                if index in scene.held_outputs:
                    return cast(Tensor, _Swap.apply(output, scene.held_outputs[index][number]))
                return output

            return hook

        def reading_out(head: nn.Module, args: tuple[Tensor, ...]) -> None:
            self._watch_descent(len(self.layers), args[0], played)

        handles.append(self.learner.model.head.register_forward_pre_hook(reading_out))
        for index, layer in enumerate(self.layers):
            handles.append(layer.module.register_forward_pre_hook(entering(index)))
            handles.append(layer.module.register_forward_hook(leaving(index)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _watch_descent(self, index: int, x: Tensor, played: Played) -> None:
        """See whether a gradient comes back to what layer `index` is given, and whether it can go on from there."""
        if index == 0 or not x.requires_grad:
            return
        crosses = _meets(x, [layer.module.weight for layer in self.layers[:index]])

        def note(_gradient: Tensor) -> None:
            played.errors_sent_down = True
            played.crossed_layers |= crosses

        x.register_hook(note)


def _noise_like(gradient: Tensor) -> Tensor:
    source = torch.Generator().manual_seed(5)
    return torch.randn(gradient.shape, generator=source, dtype=gradient.dtype) * gradient.abs().max()


def _meets(x: Tensor, weights: list[Tensor]) -> bool:
    """Whether the graph that made `x` holds one of the weights."""
    wanted = {id(weight) for weight in weights}
    waiting, seen = [x.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if id(getattr(node, "variable", None)) in wanted:
            return True
        waiting += [parent for parent, _ in node.next_functions]
    return False


class _Swap(torch.autograd.Function):
    """Other values forward; the gradient passes as if nothing had happened."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def differs(a: Tensor, b: Tensor, scale: Tensor | None = None) -> bool:
    """Whether two float64 updates differ by more than rounding, in units of the larger one or of `scale`."""
    size = max(a.abs().max().item(), b.abs().max().item()) if scale is None else scale.abs().max().item()
    gap = (a - b).abs().max().item()
    return not gap <= 1e-8 * size + 1e-13
