"""Information-bottleneck Hebbian learning: each layer forgets the input and keeps the label, by one dependence measure.

    L = HSIC(input, z) − γ HSIC(label, z)          z = layernorm(relu(u)) of each sample, u = w x
    HSIC(a, z) = tr(K_a H K_z H) / (N − 1)²         H = 1 − 1/N,  K_a = exp(−‖a_n − a_m‖² / 2σ²d),  d entries in a;
                                                    of a label, one-hot, as many as there are classes

Daruwalla & Lipasti 2024, arXiv:2111.13187: the slope of L is a three-factor rule, Δw = −⟨ξ f′(u) xᵀ⟩, a Hebbian term
times a modulator ξ that the layer's units share through their kernel. They take the newest of a window of N samples
alone; here every sample of the batch takes that part once. A convolution's positions are entries of z.
"""

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat
from torch import Tensor

from hebbbench import Rule


class InformationBottleneck(Rule):
    expected_failures: ClassVar[dict[str, str]] = {
        "convolution": "a sample is one activity z, so its positions are no samples of their own"
    }

    balance: PositiveFloat = 2.0  # γ
    width_input: PositiveFloat = 0.5  # σ of the input's kernel
    width_label: PositiveFloat = 0.1  # σ of the label's
    width_layer: PositiveFloat = 1.0  # σ of z's
    classes: Annotated[int, Field(ge=2)] = 10  # d of the label's kernel

    def loss(self, post: Tensor, input: Tensor, labels: Tensor) -> Tensor:
        z = post.relu().view(len(labels), -1)
        z = F.layer_norm(z, z.shape[1:])
        differ = (labels.unsqueeze(0) != labels.unsqueeze(1)).to(z.dtype)  # one-hot labels are 2 apart
        told = torch.exp(differ / (-self.classes * self.width_label**2))
        return hsic(kernel(input, self.width_input) - self.balance * told, kernel(z, self.width_layer))


def kernel(a: Tensor, width: float) -> Tensor:
    distances = (a.unsqueeze(0) - a.unsqueeze(1)).square().mean(2)
    return torch.exp(distances / (-2 * width**2))


def hsic(a: Tensor, b: Tensor) -> Tensor:
    centred = a - a.mean(0) - a.mean(1, keepdim=True) + a.mean()
    return (centred * b).sum() / max(1, len(a) - 1) ** 2
