"""The check that a rule's recipes fit the protocols they name."""

from __future__ import annotations

import torch

from hebbbench import registry
from hebbbench.cell import cells
from hebbbench.checks.subject import Failed, Skipped, Subject
from hebbbench.data import dataset_spec
from hebbbench.errors import HebbBenchError
from hebbbench.plasticity.rule import per_layer
from hebbbench.plasticity.select import select
from hebbbench.protocol import Protocol
from hebbbench.training import optimise
from hebbbench.training.network import build_model


def resolve_all(subject: Subject) -> str:
    """Each recipe stays within its protocol: free keys, budget, one value a layer, hyper-parameters that exist."""
    recipes = registry.recipes(subject.rule)
    if not recipes:
        raise Skipped(f"no {subject.path.with_suffix('.yaml').name}: every protocol's defaults stand")
    known = registry.protocol_names()
    named = [name for name in recipes if name != "default"]
    for name in named:
        if name not in known:
            raise Failed(f"a recipe is for '{name}', which is no protocol. Protocols: {', '.join(known)}.")
    protocols = {name: registry.protocol(name) for name in (known if "default" in recipes else named)}
    concerned = [name for name, protocol in protocols.items() if name in named or _meant(subject, protocol)]
    for name in concerned:
        try:
            _resolve(subject, protocols[name])
        except HebbBenchError as error:
            raise Failed(f"{subject.path.with_suffix('.yaml').name}, under '{name}': {error}") from error
    return f"{len(recipes)} recipes, {len(concerned)} protocols"


def _meant(subject: Subject, protocol: Protocol) -> bool:
    """Whether a protocol is open to the rule: it names no rules, or this one."""
    return not protocol.rules or subject.path.stem in protocol.rules


def _resolve(subject: Subject, protocol: Protocol) -> None:
    cell = cells(protocol, [subject.rule], [0], {})[0]
    work, spec = cell.work, dataset_spec(cell.work.data.dataset)
    with torch.device("meta"):
        model = build_model(work.architecture.name, cell.recipe.architecture, spec.shape, spec.classes)
    patterns = work.plastic if subject.kind.end_to_end() else work.plastic_unsupervised or work.plastic
    layers = list(select(model, patterns))
    per_layer(subject.kind, cell.recipe.hyperparameters, layers)
    optimise.rates(cell.recipe.training.optimizer, layers)
