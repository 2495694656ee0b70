"""One protocol or rule in full, as text."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

from hebbbench import registry
from hebbbench.cards import card
from hebbbench.data import dataset_spec
from hebbbench.errors import HebbBenchError
from hebbbench.plasticity.rule import SIGNALS, STEP_SIGNALS
from hebbbench.plasticity.select import select
from hebbbench.protocol import Protocol
from hebbbench.recipe import resolve
from hebbbench.report import point, table
from hebbbench.sections import Published
from hebbbench.training.coherence import check_work
from hebbbench.training.network import blank_input, build_model
from hebbbench.training.optimise import rates
from hebbbench.training.outline import check_batch, count


def protocol_page(protocol: Protocol) -> str:
    """What a protocol fixes and frees, its network layer by layer, its recipes and the published numbers.

    Raises:
        HebbBenchError: what it says does not go together, so that nothing could be run under it.
    """
    work = _first_point(protocol)
    check_work(work)
    data, spec, probe = protocol.data, dataset_spec(protocol.data.dataset), protocol.probe
    splits = {"training": spec.counts["train"] - data.validation, "validation": data.validation}
    counts = ", ".join(f"{count} {name}" for name, count in splits.items() if count)
    samples = f"{spec.name}: {counts}, {spec.counts['test']} test samples of {'×'.join(map(str, spec.shape))}"
    augmented = f"; augmentation {data.augment}" if data.augment != "none" else ""
    bare = f"; rules that see no label learn from {data.unlabelled}" if data.unlabelled else ""
    white = f"; ZCA whitening with {data.whiten} added to each variance" if data.whiten is not None else ""
    defaults = protocol.training.model_dump(mode="json", exclude_none=True)
    facts = {
        "hash": protocol.hash,
        "data": f"{samples}{augmented}{bare}",
        "input": f"(pixel/255 − mean)/std, mean {data.mean}, std {data.std}{white}" if data.mean else None,
        "training": f"up to {protocol.budget.epochs} epochs; by default {_compact(defaults)}",
        "free": ", ".join(protocol.free) or "hyper-parameters only",
        "probe": _compact(probe.model_dump(mode="json")) if probe is not None else None,
        "headline": f"{protocol.headline}; seeds {', '.join(map(str, protocol.seeds))}; precision {protocol.precision}",
        "controls": ", ".join(protocol.controls),
    }
    lines = [f"{protocol.name} v{protocol.version}: {protocol.title}", "", protocol.description, ""]
    lines += [f"{name:<8}  {fact}" for name, fact in facts.items() if fact]
    lines += [f"axis      {name}: {axis.path} in {axis.values}" for name, axis in protocol.axes.items()]
    lines += ["", "Network", "", _network(work), "", "Recipes", "", _recipes(protocol, work)]
    if protocol.published:
        lines += ["", "Published (never ranked)", "", _published(protocol.published)]
    return "\n".join(lines)


def _published(entries: Sequence[Published]) -> str:
    """What others printed, a line each, without a column in which no line has anything; below, where it stands."""
    places = [f"{item.source}; {item.note}" if item.note else item.source for item in entries]
    numbers = {place: f"[{number}]" for number, place in enumerate(dict.fromkeys(places), start=1)}
    columns = {
        "rule": [item.rule for item in entries],
        "at": [point(item.axes) for item in entries],
        "metric": [item.metric for item in entries],
        "figure": [_figure(item) for item in entries],
        "source": [numbers[place] for place in places],
    }
    told = {name: values for name, values in columns.items() if any(values)}
    rows = table(list(zip(*told.values(), strict=True)), list(told))
    return "\n".join([rows, "", *(f"{number} {place}" for place, number in numbers.items())])


def _figure(item: Published) -> str:
    """An accuracy in percent; what is none, such as an alignment, which lies between −1 and 1, as it is."""
    scale, unit = (100, " %") if "accuracy" in item.metric else (1, "")
    spread = f" ± {scale * item.sd:.2f}" if item.sd is not None else ""
    return f"{scale * item.value:.2f}{unit}{spread}"


def _first_point(protocol: Protocol) -> Protocol:
    """The protocol at the first value of every axis."""
    return protocol.at({name: axis.values[0] for name, axis in protocol.axes.items()})


def _network(work: Protocol) -> str:
    """Shapes and parameter counts, part by part. Nothing is computed."""
    spec = dataset_spec(work.data.dataset)
    count(work.architecture.name, work.architecture.options, spec.name)
    check_batch(work.architecture.name, work.architecture.options, spec.name, work.training.batch_size)
    model = build_model(work.architecture.name, work.architecture.options, spec.shape, spec.classes, outline=True)
    plastic = select(model, work.plastic)
    rates(work.training.optimizer, list(plastic))
    governed = {f"{name}.weight" for name in plastic}
    parts = {
        f"{half}.{name}" if name else half: module
        for half in ("body", "head")
        for name, module in [*getattr(model, half).named_children()] or [("", getattr(model, half))]
    }
    sizes: dict[str, str] = {}
    for name, module in parts.items():
        module.register_forward_hook(lambda _module, _inputs, y, name=name: sizes.update({name: _size(y)}))
    with torch.no_grad():
        model.eval()(blank_input(model, spec.shape, 1, "meta"))
    rows: list[tuple[object, ...]] = []
    for name, module in parts.items():
        counts = {f"{name}.{inner}": parameter.numel() for inner, parameter in module.named_parameters()}
        ruled = sum(count for inner, count in counts.items() if inner in governed)
        total = sum(counts.values())
        mark = "" if not total else "gradient" if not ruled else "plastic" if ruled == total else "both"
        rows.append((name, type(module).__name__, sizes.get(name, ""), total or "", mark))
    rows.append(("total", "", "", sum(parameter.numel() for parameter in model.parameters()), ""))
    note = f"\n\n{len(governed)} plastic layers: {', '.join(work.plastic)}"
    return table(rows, ["layer", "kind", "output", "parameters", "learns by"]) + note


def _size(output: object) -> str:
    return "×".join(map(str, output.shape[1:])) if isinstance(output, torch.Tensor) else ""


def _recipes(protocol: Protocol, work: Protocol) -> str:
    rows = []
    for name in protocol.rules or registry.rule_names():
        resolved = resolve(work, registry.recipe(name, protocol.name), name)
        training = resolved.training
        cost = f", {resolved.search.trials} trials" if resolved.search else ""
        rows.append(
            (
                name,
                resolved.provenance + cost,
                training.epochs,
                training.batch_size,
                _compact(training.optimizer.model_dump(mode="json", exclude_defaults=True)),
                _compact(resolved.hyperparameters) if resolved.hyperparameters else "",
            )
        )
    return table(rows, ["rule", "provenance", "epochs", "batch", "optimizer", "hyper-parameters"])


def rule_page(name: str, cache: Path | None = None) -> str:
    """A rule's equation, signals, plausibility, hyper-parameters and recipes.

    Args:
        cache: where its card is kept; measured now if it is not there.

    Raises:
        HebbBenchError: there is no such rule, or its file is wrong.
    """
    kind = registry.rule(name)
    path = registry.rule_path(name)
    module = inspect.getmodule(kind)
    hyperparameters = [
        (key, getattr(field.annotation, "__name__", str(field.annotation)), field.default)
        for key, field in kind.model_fields.items()
    ]
    known = STEP_SIGNALS if kind.shape == "step" else SIGNALS
    lines = [
        inspect.cleandoc((module.__doc__ if module else None) or kind.__doc__ or path.stem),
        "",
        "Signals",
        "",
        table([(signal, known[signal]) for signal in kind.signals], ["signal", "what it is"]),
        "",
        _plausibility(name, cache),
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


def _plausibility(name: str, cache: Path | None) -> str:
    try:
        return card(name, cache).text()
    except HebbBenchError as error:
        return f"Plausibility, not measured\n  {error}"


def _compact(value: object) -> str:
    """A value on one line, as YAML writes it."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.removesuffix("\n").removesuffix("...").rstrip()
