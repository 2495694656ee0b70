"""One protocol or rule in full, as text."""

from __future__ import annotations

import inspect

import torch
import yaml

from hebbbench import registry
from hebbbench.cell import cells
from hebbbench.data import dataset_spec
from hebbbench.plasticity.rule import SIGNALS
from hebbbench.protocol import Protocol
from hebbbench.recipe import Recipe, resolve
from hebbbench.report import table
from hebbbench.training.course import describe_model
from hebbbench.training.learner import Learner, build_model


def protocol_page(protocol: Protocol) -> str:
    """What a protocol fixes and frees, its network layer by layer, its recipes and the published numbers."""
    spec = dataset_spec(protocol.data.dataset)
    kept = spec.counts["train"] - protocol.data.validation
    defaults, probe = protocol.training.model_dump(mode="json", exclude_none=True), protocol.probe
    lines = [
        f"{protocol.name} v{protocol.version}: {protocol.title}",
        "",
        protocol.description,
        "",
        f"hash      {protocol.hash}",
        f"data      {spec.name}: {kept} training, {protocol.data.validation} validation, {spec.counts['test']} test "
        f"samples of {'×'.join(map(str, spec.shape))}; augmentation {protocol.data.augment}",
        f"input     (pixel/255 − mean)/std, mean {protocol.data.mean}, std {protocol.data.std}",
        f"training  up to {protocol.budget.epochs} epochs; by default {_compact(defaults)}",
        f"free      {', '.join(protocol.free) or 'hyper-parameters only'}",
        f"probe     {_compact(probe.model_dump(mode='json'))}",
        f"headline  {protocol.headline}; seeds {', '.join(map(str, protocol.seeds))}; precision {protocol.precision}",
        f"controls  {', '.join(protocol.controls)}",
    ]
    lines += [f"axis      {name}: {axis.path} in {axis.values}" for name, axis in protocol.axes.items()]
    lines += ["", "Network", "", _network(protocol), "", "Recipes", "", _recipes(protocol)]
    if protocol.published:
        rows = [(item.rule, f"{100 * item.value:.2f} %", item.source, item.note) for item in protocol.published]
        lines += ["", "Published (never ranked)", "", table(rows, ["rule", "accuracy", "source", "note"])]
    return "\n".join(lines)


def _network(protocol: Protocol) -> str:
    """Shapes and parameter counts, layer by layer, at the first value of every axis."""
    work = protocol.at({name: axis.values[0] for name, axis in protocol.axes.items()})
    spec = dataset_spec(work.data.dataset)
    height, width, channels = spec.shape
    model = build_model(work.architecture.name, work.architecture.options, spec.shape, spec.classes).eval()
    governed = {layer.name for layer in describe_model(_bp_learner(work)).plastic}
    rows: list[tuple[object, ...]] = []
    x = torch.zeros(1, channels, height, width)
    x = x if model.layout == "image" else x.flatten(1)
    for part in ("body", "head"):
        for name, module in getattr(model, part).named_children():
            with torch.no_grad():
                x = module(x)
            parameters = sum(parameter.numel() for parameter in module.parameters())
            full = f"{part}.{name}"
            mark = "plastic" if full in governed else "gradient" if parameters else ""
            rows.append((full, type(module).__name__, "×".join(map(str, x.shape[1:])), parameters or "", mark))
    rows.append(("total", "", "", sum(parameter.numel() for parameter in model.parameters()), ""))
    return table(rows, ["layer", "kind", "output", "parameters", "learns by"])


def _bp_learner(work: Protocol) -> Learner:
    (cell,) = cells(work.model_copy(update={"axes": {}}), ["bp"], [0], {}, Recipe(provenance="default"))
    spec = dataset_spec(work.data.dataset)
    return Learner(cell, spec.shape, spec.classes, torch.device("cpu"))


def _recipes(protocol: Protocol) -> str:
    point = protocol.at({name: axis.values[0] for name, axis in protocol.axes.items()})
    rows = []
    for name in registry.rule_names():
        resolved = resolve(point, registry.recipe(name, protocol.name), name)
        training = resolved.training
        cost = f", {resolved.search.trials} trials" if resolved.search else ""
        rows.append(
            (
                name,
                resolved.provenance + cost,
                training.epochs,
                training.batch_size,
                _compact(training.optimizer.model_dump(mode="json", exclude_defaults=True)),
                _compact(resolved.hyperparameters),
            )
        )
    return table(rows, ["rule", "provenance", "epochs", "batch", "optimizer", "hyper-parameters"])


def rule_page(name: str) -> str:
    """A rule's equation, signals, hyper-parameters and recipes."""
    kind = registry.rule(name)
    path = registry.rule_path(name)
    module = inspect.getmodule(kind)
    hyperparameters = [
        (key, getattr(field.annotation, "__name__", str(field.annotation)), field.default)
        for key, field in kind.model_fields.items()
    ]
    lines = [
        inspect.cleandoc((module.__doc__ if module else None) or kind.__doc__ or path.stem),
        "",
        "Signals",
        "",
        table([(signal, SIGNALS[signal]) for signal in kind.signals], ["signal", "what it is"]),
        "",
        "Hyper-parameters (a list gives one value a plastic layer)",
        "",
        table(hyperparameters, ["name", "type", "default"]) if hyperparameters else "none",
        "",
        "Recipes",
        "",
    ]
    recipes = registry.recipes(name)
    for protocol, recipe in recipes.items():
        plain = recipe.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        lines.append(f"{protocol}: {_compact(plain)}")
    lines += [] if recipes else ["none: every protocol's defaults stand"]
    return "\n".join([*lines, "", f"source    {path}", f"hash      {registry.rule_source_hash(name)}"])


def _compact(value: object) -> str:
    """A value on one line, as YAML writes it."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("...").rstrip()
