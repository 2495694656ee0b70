"""Regression on what a random teacher answers: the student has the teacher's architecture and other weights.

Koplow, Poggio & Ziyin, "Emergence of Hebbian Dynamics in Regularized Non-Local Learners", Appendix B.4. Left open there
and chosen here: inputs are standard normal; weights are uniform on ±1/√fan_in, as PyTorch draws linear layers, and so
are an encoder's biases; a perceptron has none, as students have none but those of direct feedback alignment; attention
heads have 8 dimensions, layer norms follow their sub-layers, a fixed sinusoid marks positions, and token embeddings are
standard normal.

The samples are part of the benchmark, so they must come out alike everywhere. They are computed in float64 from NumPy's
legacy generator, whose stream is frozen, and rounded to multiples of 2⁻¹⁶, far above the rounding errors in which
machines differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .spec import DatasetSpec
from .split import Split

Array = npt.NDArray[Any]
Map = Callable[[Array], Array]

SEED = 20251112
GRID = 2.0**16
HIDDEN = (128, 128)
VOCABULARY = 16
HEADS = 4
LAYERS = 2
CHUNK = 1000
"""Samples answered at once, to bound memory."""


def ask_teacher(spec: DatasetSpec) -> dict[str, Split]:
    """Both splits of a teacher's dataset, the same on every machine."""
    draws = np.random.RandomState(SEED)
    count, features = sum(spec.counts.values()), spec.shape[2]
    if spec.teacher == "mlp":
        inputs = _grid(draws.standard_normal((count, features)))
        teacher = _perceptron([features, *HIDDEN, spec.classes], draws)
    else:
        inputs = draws.randint(0, VOCABULARY, (count, features))
        teacher = _chain([_encoder(spec.classes, draws), _perceptron([spec.classes, *HIDDEN, spec.classes], draws)])
    answers = np.concatenate([teacher(inputs[start : start + CHUNK]) for start in range(0, count, CHUNK)])
    x = inputs.astype(spec.input_type).reshape(count, *spec.shape)
    y = _grid(answers).astype(np.float32)
    ends = np.cumsum([spec.counts[split] for split in spec.splits])
    return {
        split: Split(x[end - spec.counts[split] : end], y[end - spec.counts[split] : end])
        for split, end in zip(spec.splits, ends, strict=True)
    }


def _grid(values: Array) -> Array:
    return np.asarray(np.round(values * GRID) / GRID)


def _chain(maps: list[Map]) -> Map:
    return lambda x: reduce(lambda value, function: function(value), maps, x)


def _linear(inputs: int, outputs: int, draws: np.random.RandomState) -> Map:
    """A random linear layer without biases on rows: (…, inputs) → (…, outputs)."""
    bound = 1 / math.sqrt(inputs)
    weight = draws.uniform(-bound, bound, (outputs, inputs))
    return lambda x: np.asarray(x @ weight.T)


def _affine(inputs: int, outputs: int, draws: np.random.RandomState) -> Map:
    """A random linear layer with biases on rows: (…, inputs) → (…, outputs)."""
    linear, bound = _linear(inputs, outputs, draws), 1 / math.sqrt(inputs)
    bias = draws.uniform(-bound, bound, outputs)
    return lambda x: np.asarray(linear(x) + bias)


def _perceptron(widths: list[int], draws: np.random.RandomState) -> Map:
    """Layers without biases, tanh between them, none behind the last; (N, widths[0]) → (N, widths[-1])."""
    maps: list[Map] = []
    for inputs, outputs in pairwise(widths):
        maps += [_linear(inputs, outputs, draws), np.tanh]
    return _chain(maps[:-1])


def _encoder(size: int, draws: np.random.RandomState) -> Map:
    """The mean over positions of a transformer encoder's output; tokens (N, length) → (N, size)."""
    table = draws.standard_normal((VOCABULARY, size))
    layers = [
        (
            _affine(size, 3 * size, draws),
            _affine(size, size, draws),
            _chain([_affine(size, size, draws), lambda x: np.maximum(x, 0), _affine(size, size, draws)]),
        )
        for _ in range(LAYERS)
    ]

    def encode(tokens: Array) -> Array:
        x = table[tokens] + positions(tokens.shape[1], size)
        for project, merge, feed in layers:
            x = _normed(x + merge(_attend(project(x))))
            x = _normed(x + feed(x))
        return np.asarray(x.mean(1))

    return encode


def _attend(projected: Array) -> Array:
    """Multi-head attention from queries, keys and values side by side, (N, length, 3 size) → (N, length, size)."""
    samples, length, width = projected.shape
    parts = projected.reshape(samples, length, 3, HEADS, width // 3 // HEADS)
    query, key, value = np.moveaxis(parts, (2, 3), (0, 2))
    scores = query @ np.swapaxes(key, -1, -2) / math.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = (weights / weights.sum(-1, keepdims=True)) @ value
    return np.asarray(np.swapaxes(mixed, 1, 2).reshape(samples, length, width // 3))


def positions(length: int, size: int) -> Array:
    """Sines and cosines of the position at geometrically falling frequencies, (length, size)."""
    angles = np.arange(length)[:, None] / 10000 ** (np.arange(0, size, 2) / size)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, size)


def _normed(x: Array) -> Array:
    """Each row to zero mean and unit variance, with PyTorch's ε."""
    return np.asarray((x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5))
