"""Transformer encoder over tokens, averaged over positions, then a multi-layer perceptron as in `mlp`."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn


class Transformer(nn.Module):
    """
    Args:
        input_shape: (length, 1, 1); the input is tokens (N, length).
        classes: number of outputs.
        vocabulary: number of different tokens.
        size: of an embedding, and of the feed-forward blocks.
        layers, heads: of the encoder; layer norms follow the sub-layers, the feed-forward blocks have relu.
        widths: units of each hidden layer of the perceptron, with tanh.
        biases: in every layer of the perceptron, or in none; the encoder has them.
    """

    layout: ClassVar[Literal["tokens"]] = "tokens"

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        classes: int,
        vocabulary: int = 16,
        size: int = 32,
        layers: int = 2,
        heads: int = 4,
        widths: tuple[int, ...] = (128, 128),
        biases: Literal["all", "none"] = "none",
    ) -> None:
        super().__init__()
        modules: OrderedDict[str, nn.Module] = OrderedDict(embed=Embedding(vocabulary, input_shape[0], size))
        for i in range(1, layers + 1):
            modules[f"encoder{i}"] = Encoder(size, heads)
        modules["pool"] = Mean()
        features = size
        for i, units in enumerate(widths, start=1):
            modules[f"fc{i}"] = nn.Linear(features, units, bias=biases == "all")
            modules[f"act{i}"] = nn.Tanh()
            features = units
        self.body = nn.Sequential(modules)
        self.head = nn.Sequential(OrderedDict(linear=nn.Linear(features, classes, bias=biases == "all")))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Embedding(nn.Module):
    """Tokens (N, length) to standard-normal vectors plus sines and cosines of the position, (N, length, size)."""

    def __init__(self, vocabulary: int, length: int, size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, size)
        angles = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, size, 2) / size)
        self.register_buffer("positions", torch.stack([angles.sin(), angles.cos()], dim=-1).reshape(length, size))

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x) + self.positions


class Encoder(nn.Module):
    """Self-attention, then two linear layers with relu between; each added to its input and normalised."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(size, 3 * size)
        self.merge = nn.Linear(size, size)
        self.feed = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))
        self.norm1 = nn.LayerNorm(size, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(size, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        samples, length, size = x.shape
        parts = self.project(x).view(samples, length, 3, self.heads, size // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / math.sqrt(size // self.heads)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(samples, length, size)
        x = self.norm1(x + self.merge(mixed))
        return self.norm2(x + self.feed(x))


class Mean(nn.Module):
    """Over positions, (N, length, size) → (N, size)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)
