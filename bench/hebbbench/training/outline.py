"""What a network computes for one sample, counted on shapes alone: no data, no weights, no arithmetic."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hebbbench import registry
from hebbbench.data import dataset_spec
from hebbbench.errors import HebbBenchError, ProtocolError, one_line, place_in
from hebbbench.training.counter import Counter
from hebbbench.training.network import ACTIVATIONS, blank_input, build_model

SHAPELESS = (*ACTIVATIONS, _BatchNorm, nn.LayerNorm)
"""Modules that keep a shape and have no products. On torch's meta device they would take most of the time."""


def count(architecture: str, options: dict[str, object], dataset: str) -> tuple[int, int]:
    """Operations of a forward pass through body and read-out, and the number of features.

    Raises:
        HebbBenchError: the network cannot be built for the dataset's samples with these options, or cannot answer one.
    """
    spec = dataset_spec(dataset)
    model = build_model(architecture, options, spec.shape, spec.classes, outline=True).eval()
    for name, parameter in model.named_parameters():
        if not parameter.numel():
            raise ProtocolError(
                f"architecture '{architecture}' with {options} has a layer of no units: {name} is "
                f"{'×'.join(map(str, parameter.shape))}. Give each layer at least one."
            )
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, SHAPELESS):
                setattr(module, name, nn.Identity())
    try:
        with torch.no_grad(), Counter() as counter:
            features = model.body(blank_input(model, spec.shape, 1, "meta"))
            answers = model.head(features)
    except HebbBenchError:
        raise
    except Exception as error:
        place = place_in(error, registry.architecture_path(architecture))
        raise ProtocolError(
            f"architecture '{architecture}' with {options} fails on one sample of {spec.name}: "
            f"{type(error).__name__}: {one_line(error).removesuffix('.')}{place}."
        ) from error
    if features.dim() != 2 or answers.shape != (1, spec.classes):
        raise ProtocolError(
            f"architecture '{architecture}' with {options} makes features {tuple(features.shape)} and answers "
            f"{tuple(answers.shape)} of one sample of {spec.name}. Make it (1, features) and (1, {spec.classes})."
        )
    return counter.operations, features.numel()


def activity(architecture: str, options: dict[str, object], dataset: str) -> int:
    """How many numbers a network holds at once for one sample, at least: its input, and its widest layer's output."""
    spec = dataset_spec(dataset)
    model = build_model(architecture, options, spec.shape, spec.classes, outline=True).eval()
    x = blank_input(model, spec.shape, 1, "meta")
    widths: list[int] = []
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.register_forward_hook(lambda _, inputs, output: widths.append(output.numel()))
    with torch.no_grad():
        model(x)
    return x.numel() + max(widths, default=0)


def check_batch(architecture: str, options: dict[str, object], dataset: str, batch_size: int) -> None:
    """Refuse batches of one sample where the network normalises over a batch.

    Raises:
        ProtocolError: a batch normalisation has one number a feature to take its mean of.
    """
    if batch_size > 1:
        return
    spec = dataset_spec(dataset)
    model = build_model(architecture, options, spec.shape, spec.classes, outline=True)
    alone: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(
                lambda _, inputs, name=name: alone.append(name) if inputs[0][:, 0].numel() == 1 else None
            )
    with torch.no_grad():
        model.eval()(blank_input(model, spec.shape, 1, "meta"))
    if alone:
        raise ProtocolError(
            f"training.batch_size = {batch_size} leaves batch normalisation '{alone[0]}' of architecture "
            f"'{architecture}' one number a feature, which is its own mean. Choose 2 or more, or another normalisation."
        )
