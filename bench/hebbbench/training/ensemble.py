"""Small networks trained many at a time: one batched product where a loop over networks would make many small ones.

A multi-layer perceptron of a hundred units leaves a processor waiting for instructions, not for arithmetic. Networks
that differ only in seed, rates, decay, penalty or noise are stacked along a first dimension E and take every step
together, with the backward pass written out. The result is that of the loop over networks, up to rounding.

What can be stacked is said in `stackable.py`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vmap

from hebbbench.metrics.alignment import cosines, hebbian
from hebbbench.plasticity.feedback import direct_matrix
from hebbbench.plasticity.rule import Rule
from hebbbench.plasticity.signals import LinearPre
from hebbbench.rng import generator
from hebbbench.sections import Training
from hebbbench.training.alignment import short
from hebbbench.training.learner import Learner
from hebbbench.training.stackable import ACTIVATIONS, descends, elementwise, layers_of
from hebbbench.training.stacked import Room, StackedOptimizer

Stack = list[Tensor]


class Ensemble:
    """Learners of one architecture, rule and batch size, taking steps together.

    Args:
        learners: where the weights come from; `release` gives them back.
        trainings: of each learner; optimizers may differ in numbers, not in kind.
    """

    def __init__(self, learners: list[Learner], trainings: list[Training]) -> None:
        self.learners, self.trainings = learners, trainings
        self.size = len(learners)
        self.seeds = [learner.seed for learner in learners]
        first = learners[0]
        stacks = [layers_of(learner.model) or [] for learner in learners]
        self.activations = [ACTIVATIONS[type(activation)] for _, activation in stacks[0]]
        self.weights = [torch.stack([s[k][0].weight.detach() for s in stacks]) for k in range(len(stacks[0]))]
        self.transposed = [weight.mT for weight in self.weights]
        self.biases = [
            None if module.bias is None else torch.stack([s[k][0].bias.detach()[None] for s in stacks])
            for k, (module, _) in enumerate(stacks[0])
        ]
        self.device = self.weights[0].device
        plastic = [layer.module for layer in first.plasticity.layers]
        self.plastic = {k: plastic.index(module) for k, (module, _) in enumerate(stacks[0]) if module in plastic}
        self.names = [layer.name for layer in first.plasticity.layers]
        self.rules = [layer.rule for layer in first.plasticity.layers]
        self.states = [
            {key: torch.stack([learner.plasticity.layers[i].state[key] for learner in learners]) for key in layer.state}
            for i, layer in enumerate(first.plasticity.layers)
        ]
        self.end_to_end, self.loss = first.end_to_end, first.loss
        self.reach = len(self.weights) if self.end_to_end else 1 + max(self.plastic)
        self.direct = first.feedback == "direct"
        self.matrices = [self._feedback(k) for k in range(len(self.weights))] if self.direct else []
        self.noise = torch.tensor([learner.noise for learner in learners], device=self.device).view(-1, 1, 1)
        self.noisy = bool(self.noise.any())
        limits = [training.optimizer.clip for training in trainings]
        clips = [math.inf if limit is None else limit for limit in limits]
        self.clips = torch.tensor(clips, device=self.device)
        self.clipping = any(limit is not None for limit in limits)
        self.sparsity = torch.tensor([training.sparsity for training in trainings], device=self.device).view(-1, 1, 1)
        self.sparse = bool(self.sparsity.any())
        self.trained = self._trained()
        self.optimizers = self._optimizers()
        self.updates: Stack = []
        self.traffic: list[tuple[Tensor, Tensor, Tensor]] = []
        self.rooms: dict[int, Room] = {}
        self.elementwise = [elementwise(self.rules[i], self.weights[k].shape[1:]) for k, i in self.plastic.items()]
        self.descends = [descends(rule) for rule in self.rules]

    def _feedback(self, k: int) -> Tensor:
        outputs, inputs = self.weights[-1].shape[1], self.weights[k].shape[2]
        return torch.stack([direct_matrix(seed, k, outputs, inputs) for seed in self.seeds]).to(self.device)

    def _optimizers(self) -> list[StackedOptimizer]:
        """One for each stack of parameters that is trained, in the order of `trained`."""
        specs = [(training.optimizer, training.rest or training.optimizer) for training in self.trainings]
        return [
            StackedOptimizer([pair[0 if is_plastic else 1] for pair in specs], parameter)
            for parameter, is_plastic in self.trained
        ]

    def _trained(self) -> list[tuple[Tensor, bool]]:
        """Every stack that changes, and whether the rule governs it: weights, then biases."""
        weights = [(w, k in self.plastic) for k, w in enumerate(self.weights) if self.end_to_end or k in self.plastic]
        return weights + [(b, False) for b in self.biases if b is not None and self.end_to_end]

    def shake(self, step: int) -> None:
        """Add the step's noise to every parameter, in each network's own draws."""
        if not self.noisy:
            return
        sources = {seed: generator(seed, "noise", step) for seed in set(self.seeds)}
        for weight, bias in zip(self.weights, self.biases, strict=True):
            for stack in (weight,) if bias is None else (weight, bias):
                drawn = {seed: torch.randn(stack.shape[1:], generator=source) for seed, source in sources.items()}
                stack.add_(torch.stack([drawn[seed] for seed in self.seeds]).to(self.device) * self.noise)

    @torch.no_grad()
    def step(self, x: Tensor, targets: Tensor, number: int, annealed: float) -> Tensor | None:
        """One update of every network.

        Args:
            x: (E, B, in); targets: classes (E, B), or (E, B, outputs).
            annealed: factor of every learning rate.

        Returns:
            The mean loss of each network, (E,), or None for a rule without one.
        """
        self.shake(number)
        loss = self.find_update(x, targets)
        self._clip()
        for optimizer, (parameter, _), update in zip(self.optimizers, self.trained, self.updates, strict=True):
            optimizer.step(parameter, update, annealed)
        for k, i in self.plastic.items():
            if type(self.rules[i]).constrain is not Rule.constrain:
                self.weights[k].copy_(vmap(self.rules[i].constrain)(self.weights[k]))
        return loss

    def find_update(self, x: Tensor, targets: Tensor) -> Tensor | None:
        """Leave every trained stack's update in `updates`; return the loss of each network."""
        rows = x.shape[1]
        room = self.rooms[rows] if rows in self.rooms else self.rooms.setdefault(rows, Room(self.weights, rows))
        self.traffic, y = [], x
        for k in range(self.reach):
            bias, activation = self.biases[k], self.activations[k]
            inputs, u = y, torch.bmm(y, self.transposed[k], out=room.potentials[k])
            y = u if bias is None else torch.add(u, bias, out=room.activities[k])
            y = y if activation is None else activation[0](y, out=room.activities[k])
            self.traffic.append((inputs, u, y))
        error = loss = None
        if self.end_to_end:
            loss, error = self._objective(y, targets, room)
            self._backward(room)
        updates, biases = [], []
        for k in range(self.reach):
            descent = room.descents[k] if self.end_to_end else None
            if k in self.plastic:
                updates.append(self._ask(k, descent, error, targets, x))
            elif descent is not None:
                updates.append(descent)
            if self.end_to_end and self.biases[k] is not None:
                biases.append(room.errors[k].sum(1, keepdim=True))
        self.updates = updates + biases
        return loss

    def _objective(self, answers: Tensor, targets: Tensor, room: Room) -> tuple[Tensor, Tensor]:
        """Loss (E,) and output error (E, B, outputs); leaves the loss's descent at the answers in `room.errors`."""
        if self.loss == "mse":
            error = torch.sub(answers, targets, out=room.output)
            flat, numbers = error.flatten(1), error[0].numel()
            torch.mul(error, -2 / numbers, out=room.errors[-1])
            return torch.bmm(flat[:, None], flat[:, :, None]).flatten().div_(numbers), error
        logs = answers.log_softmax(2)
        error = logs.exp() - F.one_hot(targets, answers.shape[2])
        torch.div(error, -answers.shape[1], out=room.errors[-1])
        return -logs.gather(2, targets[:, :, None]).mean((1, 2)), error

    def _backward(self, room: Room) -> None:
        """Leave each layer's descent −∂L/∂w (E, out, in) and −∂L/∂u (E, B, out) at its potential in `room`."""
        for k in reversed(range(len(self.weights))):
            x = self.traffic[k][0]
            torch.bmm(room.errors[k].mT, x, out=room.descents[k])
            if k:
                back = (room.errors[-1], self.matrices[k]) if self.direct else (room.errors[k], self.weights[k])
                delta = torch.bmm(*back, out=room.errors[k - 1])
                if self.sparse and k - 1 in self.plastic:
                    delta.addcmul_(self.sparsity / x[0].numel(), x.sign(), value=-1)
                activation = self.activations[k - 1]
                if activation is not None:
                    activation[1](delta, x, grad_input=delta)

    def _ask(self, k: int, descent: Tensor | None, error: Tensor | None, targets: Tensor, x: Tensor) -> Tensor:
        """The rule's update of layer k; `descent` is left as it is."""
        i = self.plastic[k]
        rule = self.rules[i]
        if self.descends[i] and descent is not None:
            return descent
        gradient = None if descent is None else -descent
        if self.elementwise[i] and gradient is not None:
            return rule.delta(gradient)
        inputs, u, _ = self.traffic[k]
        given = {
            "pre": inputs,
            "post": u,
            "weight": self.weights[k],
            "grad": gradient,
            "state": self.states[i],
            "error": error,
            "labels": targets,
            "input": x,
        }

        def one(signals: dict[str, Any]) -> Tensor:
            return rule.delta(**{name: LinearPre(s) if name == "pre" else s for name, s in signals.items()})

        return vmap(one)({name: given[name] for name in rule.signals})

    def _clip(self) -> None:
        if self.clipping:
            norms = torch.stack([update.square().sum((1, 2)) for update in self.updates]).sum(0).sqrt()
            factors = (self.clips / (norms + 1e-6)).clamp(max=1.0).view(-1, 1, 1)
            self.updates = [update * factors for update in self.updates]

    def alignment(self) -> dict[str, Tensor]:
        """The cosines of the last step's updates, metric name → (E,); see `hebbbench.metrics.alignment`."""
        trained = [k for k in range(self.reach) if self.end_to_end or k in self.plastic]
        found = {}
        for k, i in self.plastic.items():
            x, u, y = self.traffic[k]
            name, update = short(self.names[i]), self.updates[trained.index(k)]
            found[name] = cosines(update, hebbian(u, x))
            found[f"{name}.post"] = cosines(update, hebbian(y, x))
        return found

    def largest(self) -> list[dict[str, float]]:
        """Each network's largest weight by parameter name."""
        names, stacks = self._named()
        maxima = torch.stack([stack.abs().amax((1, 2)) for stack in stacks], 1).tolist()
        return [dict(zip(names, row, strict=True)) for row in maxima]

    def _named(self) -> tuple[list[str], Stack]:
        names = [name for name, _ in self.learners[0].model.named_parameters()]
        stacks = [s for pair in zip(self.weights, self.biases, strict=True) for s in pair if s is not None]
        return names, stacks

    @torch.no_grad()
    def release(self) -> None:
        """Give the weights and the rules' states back to the learners."""
        _, stacks = self._named()
        for e, learner in enumerate(self.learners):
            for parameter, stack in zip(learner.model.parameters(), stacks, strict=True):
                parameter.copy_(stack[e].view_as(parameter))
            for layer, state in zip(learner.plasticity.layers, self.states, strict=True):
                for key, value in state.items():
                    layer.state[key].copy_(value[e])
