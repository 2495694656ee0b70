"""What the gradient, and what Hebb's rule, would have done with the batch a layer has just learnt from."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hebbbench.metrics.direction import cosine, sign_agreement
from hebbbench.plasticity.divided import divide
from hebbbench.plasticity.signals import post_rows, pre_of, weight_rows
from hebbbench.plasticity.terms import hebb
from hebbbench.rng import derive, seed_torch
from hebbbench.training.learner import Learner
from hebbbench.training.network import Network
from hebbbench.training.passes import gradients, objective


class Witness:
    """A second network of the same build, without the rule's hooks and with the exact gradient's path back.

    It takes over the learner's weights, repeats the forward pass (dropout included) and, where the learner trains a
    read-out, the backward pass. So it costs about one step of backprop each time it is asked, and one network's memory.

    Args:
        model: a freshly built network of the learner's architecture; nothing may be attached to it.
        learner: whose steps are judged.

    Attributes:
        last: index of a layer → its newest update Δw and Hebb's ⟨u xᵀ⟩ for the same batch, both (out, in).
    """

    def __init__(self, model: Network, learner: Learner) -> None:
        self.model = model.to(learner.device)
        if self.model.layout == "image":
            self.model.to(memory_format=torch.channels_last)
        if learner.world.size > 1:
            divide(self.model, learner.world)
        modules = dict(self.model.named_modules())
        self.layers: list[nn.Linear | nn.Conv2d] = [modules[layer.name] for layer in learner.plasticity.layers]
        self.reaches_head = any(module in self.layers for module in self.model.head.modules())
        self.last: dict[int, tuple[Tensor, Tensor]] = {}
        for module in modules.values():
            if getattr(module, "inplace", False):
                module.inplace = False

    def compare(self, learner: Learner, x: Tensor, labels: Tensor, number: int) -> Iterator[tuple[int, str, float]]:
        """For each layer with an update in `weight.grad`: (index of the layer, kind, value).

        Kinds, with Δw the update as the rule left it and all means over this batch alone:

            hebbian_alignment    cos(Δw, ⟨u xᵀ⟩)              u = w x
            gradient_alignment   cos(Δw, −∂L/∂w)              only where a read-out is trained
            gradient_sign        share of equal signs of Δw and −∂L/∂w, the same; chance is 0.5
        """
        seen = self._pass(learner, x, labels, number, backward=learner.trains_readout)
        for index, plastic in enumerate(learner.plasticity.layers):
            gradient = plastic.module.weight.grad
            if gradient is None:
                continue
            delta = -weight_rows(gradient)
            inputs, output = seen[index]
            mine = self.layers[index]
            plain = learner.world.mean(hebb(post_rows(output, mine), pre_of(inputs, output, mine)))
            self.last[index] = delta, plain
            values = {"hebbian_alignment": cosine(delta, plain)}
            if mine.weight.grad is not None:
                descent = -weight_rows(mine.weight.grad)
                values["gradient_alignment"] = cosine(delta, descent)
                values["gradient_sign"] = sign_agreement(delta, descent)
            yield from ((index, kind, value) for kind, value in values.items() if value is not None)

    def descent(self, learner: Learner, x: Tensor, labels: Tensor, number: int) -> list[Tensor]:
        """−∂L/∂w of each plastic layer, (out, in), at the learner's weights and whatever its read-out is."""
        self._pass(learner, x, labels, number, backward=True)
        return [-weight_rows(layer.weight.grad) for layer in self.layers if layer.weight.grad is not None]

    def _pass(
        self, learner: Learner, x: Tensor, labels: Tensor, number: int, *, backward: bool
    ) -> list[tuple[Tensor, Tensor]]:
        """Input and output of each plastic layer; gradients are left in the weights of this network."""
        self.model.load_state_dict(learner.model.state_dict())
        self.model.zero_grad(set_to_none=True)
        for mine, theirs in zip(self.model.modules(), learner.model.modules(), strict=True):
            mine.training = theirs.training
        seen: dict[int, tuple[Tensor, Tensor]] = {}

        def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[id(module)] = inputs[0].detach(), output.detach()

        handles = [layer.register_forward_hook(keep) for layer in self.layers]
        devices = range(torch.cuda.device_count())
        with torch.random.fork_rng(devices=devices), torch.set_grad_enabled(backward):
            seed_torch(derive(learner.seed, "dropout", number))
            features = self.model.body(x)
            answers = self.model.head(features) if backward or self.reaches_head else features
            if backward:
                loss = objective(learner.loss, answers, labels)
                learner.world.weighted(loss).backward()
                learner.world.sum_in_place(gradients(self.model.parameters()))
        for handle in handles:
            handle.remove()
        return [seen[id(layer)] for layer in self.layers]
