"""Difference target propagation: each layer is given a target for its activity, found by learned inverses.

    ô   = o − η ∂C/∂o                                C the cross-entropy of the answers o = head(h_L)
    ĥ_l = h_l − g(h_{l+1}) + g(ĥ_{l+1})                g(h) = f(V h), f the nonlinearity of layer l;  h_{L+1} = o
    Δw_l = −⟨∂/∂w_l ½‖f_l(h_{l−1}) − ĥ_l‖²⟩ / η           of the read-out: −⟨∂C/∂w⟩, which is the same
    ΔV  ∝ −∂/∂V Σ ‖g(f_{l+1}(h_l + ε)) − (h_l + ε)‖²     ε of standard deviation σ

Lee, Zhang, Fischer & Bengio 2015, arXiv:1412.7525. Ours: every layer learns at every step, inverses after weights; V
starts uniform with variance 1/fan-in and moves by r of a normalised least-mean-squares step, over Σ‖f_{l+1}‖² and the
size of a kernel; the inverse of a convolution is a convolution of the activity brought back to its size before pooling.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor, nn

from hebbbench import Block, Chain, Rule, draw_counter, uniform


class DifferenceTargetPropagation(Rule):
    expected_failures: ClassVar[dict[str, str]] = {
        "sample-order": "the noise that inverses learn from is drawn for the batch, row by row"
    }

    target_rate: PositiveFloat = 0.1  # η
    noise: PositiveFloat = 0.1  # σ
    inverse_rate: PositiveFloat = 0.5  # r

    def begin(self, network: Chain) -> dict[str, Tensor]:
        read_out = [module for module in network.head.modules() if isinstance(module, nn.Linear)][-1]
        state = {"seed": draw_counter(network.blocks[0].map.weight)}
        for layer in [*(block.map for block in network.blocks[1:]), read_out]:
            weight = layer.weight.transpose(0, 1)
            spread = (3 / weight[0].numel()) ** 0.5
            state[f"{len(state)}"] = spread * uniform(weight.shape, state["seed"]).to(weight)
        return state

    def step(self, network: Chain, input: Tensor, labels: Tensor, state: dict[str, Tensor]) -> Tensor:
        layers = [*network.blocks, network.head]
        h = [layer.detach() for layer in network.forward(input)]
        answers = network.head(h[-1])
        loss = F.cross_entropy(answers, labels)
        (slope,) = torch.autograd.grad(loss * len(labels), answers, retain_graph=True)
        high, target = answers.detach(), answers.detach() - self.target_rate * slope
        misses = []
        for index in range(len(network.blocks), 0, -1):
            inverse, layer, low = state[f"{index}"], layers[index - 1], h[index]
            target = low - self.invert(layer, inverse, high, low) + self.invert(layer, inverse, target, low)
            misses.append((layer(h[index - 1]) - target).square().sum())
            self.learn_inverse(layer, layers[index], inverse, low, state["seed"])
            high = low
        return torch.stack(misses).sum() / (2 * self.target_rate * len(labels)) + loss

    def learn_inverse(
        self, layer: Block, above: Callable[[Tensor], Tensor], inverse: Tensor, low: Tensor, seed: Tensor
    ) -> None:
        low = low + 3**0.5 * self.noise * uniform(low.shape, seed).to(low)
        high = above(low).detach()
        trial = inverse.clone().requires_grad_()
        (slope,) = torch.autograd.grad((self.invert(layer, trial, high, low) - low).square().sum() / 2, trial)
        size = high.square().sum() * inverse[0, 0].numel()
        inverse.sub_(slope / size.clamp_min(torch.finfo(size.dtype).tiny), alpha=self.inverse_rate)

    def invert(self, layer: Block, inverse: Tensor, high: Tensor, like: Tensor) -> Tensor:
        """g(h): what the layer's activity must have been, of the shape `like`."""
        if inverse.dim() == 2:
            return layer.nonlinearity((high @ inverse.T).view_as(like))
        rows, columns = like.shape[2:]
        if high.dim() == 2:  # flattened for the read-out
            high = high.unflatten(1, (inverse.shape[1], -1))
            height = round((high.shape[2] * rows / columns) ** 0.5)
            high = high.unflatten(2, (height, -1))
        return layer.nonlinearity(F.conv2d(F.interpolate(high, size=(rows, columns)), inverse, padding="same"))
