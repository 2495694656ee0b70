"""What a network computes for one sample, counted on shapes alone: no data, no weights, no arithmetic."""

from __future__ import annotations

import torch
from torch import nn

from hebbbench.data import dataset_spec
from hebbbench.training.counter import Counter
from hebbbench.training.network import ACTIVATIONS, blank_input, build_model

SHAPELESS = (*ACTIVATIONS, nn.modules.batchnorm._BatchNorm, nn.LayerNorm)
"""Modules that keep a shape and have no products. On torch's meta device they would take most of the time."""


def count(architecture: str, options: dict[str, object], dataset: str) -> tuple[int, int]:
    """Operations of a forward pass through body and read-out, and the number of features.

    Raises:
        HebbBenchError: the network cannot be built for the dataset's samples with these options.
    """
    spec = dataset_spec(dataset)
    model = build_model(architecture, options, spec.shape, spec.classes, outline=True).eval()
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, SHAPELESS):
                setattr(module, name, nn.Identity())
    with torch.no_grad(), Counter() as counter:
        features = model.body(blank_input(model, spec.shape, 1, "meta"))
        model.head(features)
    return counter.operations, features.numel()
