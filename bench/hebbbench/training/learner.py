"""One network, the rule attached to it, and the step that changes its weights."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
from torch import Tensor, nn

from hebbbench import registry
from hebbbench.cell import Cell
from hebbbench.errors import ProtocolError
from hebbbench.kernels import convolutions, patches, pools
from hebbbench.plasticity.attach import Plasticity
from hebbbench.plasticity.divided import divide
from hebbbench.plasticity.feedback import lay
from hebbbench.plasticity.procedure import Procedure
from hebbbench.plasticity.recompute import run_again_backward
from hebbbench.plasticity.rule import Rule
from hebbbench.plasticity.select import select
from hebbbench.protocol import Protocol
from hebbbench.rng import derive, generator, seed_torch, torch_seeded
from hebbbench.training import optimise
from hebbbench.training.network import build_model, drops, initialise, normalisations_before
from hebbbench.training.onlooker import Look, Watch
from hebbbench.training.passes import EndToEnd, Local, Pass, Whole
from hebbbench.training.sparsity import Penalty
from hebbbench.world import ALONE, World

DEEP = 100
"""Segments beyond which activity is computed anew: ResNet-1202 then takes 27 MiB an image in place of 98."""

EXPLODED = 1e8
"""A weight beyond this has diverged, though it still is a number."""


class Learner:
    """What a cell trains.

    Args:
        cell: the cell, which decides network, rule, recipe and seed.
        shape: of an image, (height, width, channels).
        classes: number of classes.
        device: where it lives.
        recompute: whether the network's segments compute their activity anew in the backward pass, which changes no
            number; by default if it has more than `DEEP` of them.
        world: which processes every batch is divided over.
        whole: whether the rule is shown the rows of the whole batch; see `plasticity/divided.py`.

    Raises:
        HebbBenchError: the architecture's options, the plastic layers or the recipe do not fit together.
    """

    def __init__(
        self,
        cell: Cell,
        shape: tuple[int, int, int],
        classes: int,
        device: torch.device,
        recompute: bool | None = None,
        world: World = ALONE,
        whole: bool = False,
    ) -> None:
        work, recipe = cell.work, cell.recipe
        rule = registry.rule(cell.rule)
        with torch_seeded(cell.seed, "initialisation"):
            self.model = build_model(work.architecture.name, recipe.architecture, shape, classes)
        self.end_to_end = rule.end_to_end()
        self.trains_readout = self.end_to_end or recipe.training.readout == "trained"
        patterns = work.plastic if self.end_to_end else work.plastic_unsupervised or work.plastic
        initialise(select(self.model, patterns).values(), recipe.training.init, cell.seed)
        lay(self.model, rule.feedback, cell.seed)
        products = torch.bfloat16 if work.precision == "mixed" else None
        self.plasticity = Plasticity(self.model, patterns, rule, recipe.hyperparameters, world, whole, products)
        self.world = world
        if world.size > 1:
            divide(self.model, world)
        segments = self.model.segments() if hasattr(self.model, "segments") else []
        self.recomputes = len(segments) > DEEP if recompute is None else recompute
        if self.recomputes:
            run_again_backward(segments)
        self.model.to(device)
        if self.model.layout == "image":
            self.model.to(memory_format=torch.channels_last)
        if (
            device.type == "cuda" and rule.shape != "step"
        ):  # which may differentiate twice, and kernels' slopes have none
            pools.quicken(self.model)
            convolutions.quicken(self.model)
            patches.quicken(self.model)
        for layer in self.plasticity.layers:
            layer.state = {name: value.to(device) for name, value in layer.state.items()}
        self.procedure = self._procedure(rule, cell) if rule.shape == "step" else None
        self.seed = cell.seed
        self.device = device
        self.loss = work.loss
        self.noise = recipe.training.noise
        self.penalty = self._penalty(rule, recipe.training.sparsity)
        self.feedback = rule.feedback
        self.watch: Watch | None = None
        self.annealing = recipe.training.annealing
        self.optimizers = self._optimizers(cell)
        self.draws = drops(self.model) or rule.feedback == "batchwise_signs"
        self.observer: Look | None = None
        self.norms_before = normalisations_before(self.model, self.plasticity, shape, device)
        self.passing = self._passing(work)

    def _passing(self, work: Protocol) -> Pass:
        """How this rule's update is found."""
        others = self._others if self.trains_readout else []
        mixed = work.precision == "bfloat16"
        parts = (self.model, self.plasticity, self.world, self.loss, others, mixed)
        if self.procedure is not None:
            return Whole(*parts, self.procedure)
        if self.end_to_end:
            return EndToEnd(*parts, self.penalty)
        # The pass may end at the last layer unless running statistics behind it are still wanted.
        estimated = work.probe is not None and work.probe.statistics_samples > 0
        return Local(*parts, self.trains_readout, estimated)

    def _penalty(self, rule: type[Rule], sparsity: float) -> Penalty | None:
        if not sparsity:
            return None
        if not self.end_to_end or self.procedure is not None:
            raise ProtocolError(
                f"sparsity = {sparsity}: it is a term of the loss, and rule {rule.__name__} follows none. "
                "Run a rule that takes a gradient, such as bp."
            )
        return Penalty(self.model, [layer.name for layer in self.plasticity.layers], sparsity)

    def _procedure(self, rule: type[Rule], cell: Cell) -> Procedure:
        recipe = cell.recipe
        if cell.work.precision != "float32":
            raise ProtocolError(
                f"precision = '{cell.work.precision}': rule {rule.__name__} settles in many small steps, which "
                "bfloat16 would round away. Run it under a protocol in float32."
            )
        if recipe.training.schedule == "layerwise":
            raise ProtocolError(
                f"schedule = 'layerwise': rule {rule.__name__} is a procedure for the whole network, and no layer of "
                "it learns alone. Choose schedule: joint."
            )
        return Procedure(rule.create(recipe.hyperparameters, "the whole network"), self.model)

    def _optimizers(self, cell: Cell) -> list[torch.optim.Optimizer]:
        training = cell.recipe.training
        self.specs = [training.optimizer, training.rest or training.optimizer]
        plastic = self.plasticity.weights()
        names = [layer.name for layer in self.plasticity.layers]
        optimizers = [optimise.build(training.optimizer, plastic, optimise.rates(training.optimizer, names))]
        if self.trains_readout:
            governed = {id(weight) for weight in plastic}
            self._others = [parameter for parameter in self.model.parameters() if id(parameter) not in governed]
            spec = training.rest or training.optimizer
            if isinstance(spec.lr, list):
                raise ProtocolError(
                    "optimizer.lr is a list, one a plastic layer; give the other parameters' rate as rest.lr."
                )
            if self._others:
                optimizers.append(optimise.build(spec, self._others, [spec.lr] * len(self._others)))
        return optimizers

    def step(self, x: Tensor, labels: Tensor, number: int, done: float, only: int | None = None) -> Tensor | None:
        """One update from one batch.

        Args:
            x: input batch, (N, …); labels: class indices, (N,): this process's share, if the batch is divided.
            number: of the step in the cell, the counter of its randomness.
            done: fraction of the stage's steps before this one, for annealing.
            only: index of the one plastic layer that learns; all if None.

        Returns:
            The mean loss, a scalar tensor on the device, or None for a rule without a task loss.
        """
        self.prepare(number)
        if self.watch is not None:
            self.watch.begin(number)
        loss = self.find_update(x, labels, only)
        if self.observer is not None:
            self.observer.see(number, x, labels)
        if self.watch is not None:
            self.watch.end(x, labels)
        optimise.anneal(self.optimizers, self.annealing, done)
        self.move(only)
        return loss

    def prepare(self, number: int) -> None:
        """What comes before the pass of step `number`: the noise of its parameters, the seed of its dropout."""
        if self.noise:
            optimise.shake(self.model.parameters(), self.noise, generator(self.seed, "noise", number))
        if self.draws:
            seed_torch(derive(self.seed, "dropout", number))

    def find_update(self, x: Tensor, labels: Tensor, only: int | None = None) -> Tensor | None:
        """One pass that leaves every learning parameter's negative update in its `grad`, decay not included.

        Arguments and what is returned are those of `step`.
        """
        self._train_mode(only)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = self.passing.find_update(x, labels, only)
        if self.specs[0].clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.specs[0].clip)
        return loss

    def move(self, only: int | None = None) -> None:
        """Step along the updates in `grad` at the optimizers' rates, and lay the rules' constraints on what comes.

        Args:
            only: as in `step`.
        """
        for optimizer, spec in zip(self.optimizers, self.specs, strict=False):
            optimise.penalise(optimizer, spec.l1)
        for optimizer in self.optimizers:
            optimizer.step()
        self.plasticity.constrain(only)

    def _train_mode(self, only: int | None) -> None:
        """Normalisation layers in front of a frozen layer use their running statistics."""
        self.model.train()
        if only is not None:
            for norm, layer in self.norms_before:
                norm.train(layer == only)

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """The frozen network's output (N, classes)."""
        self.model.eval()
        output: Tensor = self.model.head(self.passing.activity(x))
        return output

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """The frozen body's output (N, features)."""
        self.model.eval()
        return self.passing.activity(x).flatten(1)

    def diverged(self) -> tuple[str, str] | None:
        """The first parameter that is no number or has exploded, and which of the two; None if all is well.

        Waits for the device once.
        """
        named = dict(self.model.named_parameters())
        largest = torch.stack([parameter.detach().abs().max() for parameter in named.values()]).tolist()
        for name, value in zip(named, largest, strict=True):
            if not math.isfinite(value):
                return name, "a weight is not a finite number"
            if value > EXPLODED:
                return name, f"a weight reached {value:.3g}"
        return None

    def digest(self) -> str:
        """SHA-256 of the body's parameters and buffers, bit by bit."""
        sha = hashlib.sha256()
        for name, tensor in sorted(self.model.body.state_dict().items()):
            sha.update(name.encode())
            sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()

    def state_dict(self) -> dict[str, Any]:
        """Everything a later process needs to go on with the same bits."""
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "rule": self.plasticity.state_dict(),
            **({"procedure": self.procedure.state} if self.procedure is not None else {}),
            "observer": None if self.observer is None else self.observer.state_dict(),
            **({} if self.watch is None else {"watch": self.watch.state_dict()}),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.model.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimise.take_back(optimizer, state)
        self.plasticity.load_state_dict(saved["rule"])
        if self.procedure is not None:
            for name, value in saved["procedure"].items():
                self.procedure.state[name].copy_(value)
        if self.observer is not None:
            self.observer.load_state_dict(saved["observer"])
        if self.watch is not None:
            self.watch.load_state_dict(saved["watch"])
