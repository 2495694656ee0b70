"""Protocols, rules and results made up in memory for the tests of the board and the plan."""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path
from typing import Any

import pytest

from hebbbench import registry
from hebbbench.errors import unknown_name
from hebbbench.plan import KnownRule, Sources
from hebbbench.protocol import Protocol
from hebbbench.recipe import Recipe, resolve
from hebbbench.record import store
from hebbbench.record.card import Card
from hebbbench.record.schema import Result

DATA_DIGEST = hashlib.sha256(b"samples").hexdigest()
SEEDS = [0, 1, 2, 3, 4]

CARD = Card(
    locality="layer",
    learns=True,
    uses_labels=False,
    needs_backward_pass=False,
    transports_weights=False,
    needs_phases=False,
    update_locked=False,
    sees_earlier_layers=False,
    sees_later_layers=False,
    couples_samples=True,
    online_capable=True,
    activations_held=0.0,
    memory_grows_with_depth=False,
)


def code(rule: str) -> str:
    return hashlib.sha256(rule.encode()).hexdigest()


def make_protocol(name: str, **changes: Any) -> Protocol:
    plain: dict[str, Any] = {
        "name": name,
        "version": 1,
        "title": f"The {name} table",
        "description": "8 × 8 handwritten digits, one hidden layer of 64 units",
        "data": {"dataset": "digits", "validation": 100, "mean": [0.5], "std": [0.25]},
        "architecture": {"name": "mlp", "options": {"width": 64}},
        "plastic": ["fc1"],
        "training": {"epochs": 5, "batch_size": 32, "optimizer": {"name": "sgd", "lr": 0.1}},
        "free": ["epochs", "optimizer"],
        "budget": {"epochs": 10},
        "seeds": SEEDS,
        "probe": {"epochs": 20, "batch_size": 64, "lr": 0.01, "statistics_samples": 0},
        "chance": 0.1,
        **changes,
    }
    return Protocol.model_validate(plain)


DIGITS = make_protocol(
    "digits",
    title="Handwritten digits in two minutes",
    published=[
        {
            "rule": "softhebb",
            "value": 0.965,
            "sd": 0.001,
            "source": "Doe et al. 2023, table 2",
            "note": "3 seeds",
        },
        {"rule": "bp", "value": 0.999, "source": "Doe et al. 2023, table 2"},
    ],
)
WIDTHS = make_protocol(
    "widths",
    seeds=[0, 1],
    axes={"width": {"path": "architecture.options.width", "values": [32, 64]}},
    published=[{"rule": "softhebb", "value": 0.97, "source": "Roe 2024", "axes": {"width": 64}}],
)
PROTOCOLS = {"digits": DIGITS, "widths": WIDTHS}

SEARCHED = {
    "provenance": "searched",
    "search": {
        "trials": 24,
        "seconds": 90.0,
        "split": "validation",
        "space": "lr",
        "scores": {"lr=0.1": 0.7312, "lr=9": None},
    },
}
RECIPES: dict[str, dict[str, Recipe]] = {
    "bp": {"default": Recipe(provenance="default")},
    "random": {"default": Recipe(provenance="default")},
    "softhebb": {
        "digits": Recipe(provenance="paper", source="Doe et al. 2023", epochs=1),
        "widths": Recipe(provenance="paper", source="Doe et al. 2023"),
    },
    "oja": {"digits": Recipe.model_validate(SEARCHED), "default": Recipe(provenance="default")},
    "covariance": {"digits": Recipe(provenance="default")},
    "fa": {"default": Recipe(provenance="default")},
}
RULES = {name: KnownRule(code(name), recipes) for name, recipes in RECIPES.items()}
SIGNALS = {"bp": ["grad"], "fa": ["grad"], "random": ["weight"], "supervised": ["labels", "post", "pre"]}


def make_result(
    protocol: Protocol,
    rule: str,
    seed: int,
    value: float | None,
    axes: dict[str, Any] | None = None,
    /,
    **changes: Any,
) -> Result:
    """A result as a run would store it; `value` is the probe's accuracy, None if the run gave none."""
    axes = axes or {}
    known = RULES.get(rule)
    recipe = resolve(protocol.at(axes), known.recipe_for(protocol.name) if known else None, rule)
    status = changes.get("status", "ok")
    metrics = {
        "probe.test.accuracy": {"value": value, "split": "test", "epoch": 5},
        "end_to_end.test.accuracy": {"value": value and value - 0.01, "split": "test", "epoch": 5},
    }
    if rule not in {"bp", "fa"}:
        del metrics["end_to_end.test.accuracy"]
    plain: dict[str, Any] = {
        "protocol": {"name": protocol.name, "version": protocol.version, "hash": protocol.hash},
        "axes": axes,
        "rule": {
            "name": rule,
            "source_hash": code(rule),
            "signals": SIGNALS.get(rule, ["post", "pre", "weight"]),
        },
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
        "data": {
            "dataset": "digits",
            "identity": {"train": DATA_DIGEST, "test": DATA_DIGEST},
            "pinned": True,
            "samples": {"train": 1337, "validation": 100, "test": 360},
        },
        "model": {"parameters": 4810, "plastic": [{"name": "fc1", "fan_in": 64, "units": 64}]},
        "status": status,
        "reason": None,
        "stop": None,
        "metrics": metrics if value is not None else {},
        "curves": {},
        "weights": code(f"weights {seed}"),
        "cost": {
            "wall_seconds": 2.0 + seed,
            "train_seconds": 1.25 + seed,
            "probe_seconds": 0.5,
            "step_seconds": 0.01,
            "images_per_second": 5000.0,
            "peak_memory_bytes": 150 * 2**20,
            "steps": 200,
            "samples_seen": 6400,
            "resumed": 0,
        },
        "environment": {
            "hebbbench": "0.1.0",
            "commit": "abc1234" + "0" * 33,
            "dirty": False,
            "python": "3.12.3",
            "packages": {},
            "platform": "Linux x86_64",
            "cpu": "Example CPU",
            "threads": 2,
            "device": "cpu",
            "device_name": "Example CPU",
            "cuda": None,
            "precision": {},
            "deterministic": True,
            "determinism_probe": True,
            "unavailable": {},
        },
        "started": "2026-01-01T00:00:00Z",
        "finished": "2026-01-01T00:00:05Z",
        **changes,
    }
    return of_its_cell(plain)


def of_its_cell(plain: dict[str, Any]) -> Result:
    """The result of plain data, with the digest of the cell that they are of."""
    result = Result.model_validate({**plain, "cell": "0" * 64})
    network = None if result.architecture is None else result.architecture.source_hash
    return result.model_copy(update={"cell": result.own_digest(network)})


def board_results() -> list[Result]:
    """A full board: ranked rows, a diverged seed, a failed row, missing seeds, a rule from outside."""
    draw = random.Random(0)

    def samples(mean: float, spread: float) -> float:
        return round(360 * min(1.0, draw.gauss(mean, spread))) / 360

    digits = {"bp": 0.975, "softhebb": 0.955, "random": 0.87, "oja": 0.80}
    results = [make_result(DIGITS, rule, s, samples(mean, 0.006)) for rule, mean in digits.items() for s in SEEDS]
    results += [make_result(DIGITS, "fa", s, samples(0.97, 0.006)) for s in SEEDS[:3]]
    results += [
        make_result(DIGITS, "fa", 3, None, status="diverged", reason="loss is not finite", stop={"phase": "train"}),
        make_result(DIGITS, "covariance", 0, None, status="failed", reason="out of | memory"),
        make_result(DIGITS, "supervised", 0, samples(0.96, 0.0)),
    ]
    for width, shift in ((32, -0.02), (64, 0.0)):
        for rule, mean in {"bp": 0.97, "softhebb": 0.95}.items():
            results += [
                make_result(WIDTHS, rule, s, samples(mean + shift, 0.004), {"width": width})
                for s in WIDTHS.seeds
                if (width, rule) != (32, "bp")
            ]
    return results


def small_results(protocol: Protocol = DIGITS, **axes: Any) -> list[Result]:
    """Three rows of two seeds whose numbers are easily computed by hand."""
    values = {"bp": (0.9, 0.8), "oja": (0.7, 0.64), "random": (0.5, 0.5)}
    return [make_result(protocol, rule, seed, own[seed], axes) for rule, own in values.items() for seed in (0, 1)]


def cosine_result(protocol: Protocol, rule: str, seed: int, value: float | None, **axes: Any) -> Result:
    """A result under a protocol of alignment; without a value its layer has collapsed."""
    reason = None if value is not None else "collapsed: the weights have 0.01 of the norm they started from"
    metric = {"value": value, "split": "train", "epoch": 5, "reason": reason}
    return make_result(protocol, rule, seed, 0.5, axes, metrics={protocol.headline: metric})


def in_environment(result: Result, **changes: Any) -> Result:
    """The same result, measured elsewhere."""
    return result.model_copy(update={"environment": result.environment.model_copy(update=changes)})


def register(monkeypatch: pytest.MonkeyPatch) -> dict[str, Protocol]:
    """Let the registry hold this module's rules and protocols; more may be put into the mapping that is returned."""
    protocols = dict(PROTOCOLS)

    def protocol(name: str) -> Protocol:
        if name not in protocols:
            raise unknown_name("protocol", name, protocols)
        return protocols[name]

    monkeypatch.setattr(registry, "protocol_names", lambda: sorted(protocols))
    monkeypatch.setattr(registry, "protocol", protocol)
    monkeypatch.setattr(registry, "rule_names", lambda: sorted(RECIPES))
    monkeypatch.setattr(registry, "recipes", RECIPES.__getitem__)
    monkeypatch.setattr(registry, "rule_source_hash", code)
    monkeypatch.setattr(registry, "summary", lambda name: f"{name}: what it is.")
    return protocols


def cells_of_lines(text: str) -> list[list[str]]:
    """The cells of each line of a text with tables: what two spaces or more part."""
    return [re.split(r"  +", line.strip()) for line in text.splitlines()]


def store_all(results: list[Result], root: Path) -> None:
    for result in results:
        store.save(result, root)


def make_sources(root: Path, **changes: Any) -> Sources:
    """The sources of a results folder with this module's protocols and rules."""
    stored = tuple(store.scan(root))
    return Sources(**{"protocols": PROTOCOLS, "rules": RULES, "stored": stored, "root": root, **changes})


COSINES = make_protocol(
    "cosines",
    seeds=[0, 1],
    probe=None,
    chance=None,
    headline="alignment.fc1",
    alignment={},
    axes={"decay": {"path": "training.optimizer.weight_decay", "values": [0.0, 0.1]}},
    published=[{"rule": "oja", "value": -0.25, "metric": "alignment", "source": "Doe 2023", "axes": {"decay": 0.1}}],
)


def full_sources(root: Path) -> Sources:
    """Every kind of row, cards, a protocol of alignment, and a file that does not count."""
    ranked = [r.model_copy(update={"card": CARD}) if r.rule.name == "oja" else r for r in board_results()]
    cosines = ((0, 0.5, 0.0), (1, 0.25, 0.0), (0, None, 0.1))
    aligned = [cosine_result(COSINES, "oja", seed, value, decay=decay) for seed, value, decay in cosines]
    store_all([*ranked, *aligned], root)
    (root / "stray.json").write_text("{")
    return make_sources(root, protocols={**PROTOCOLS, "cosines": COSINES})


def markdown_rows(text: str) -> dict[tuple[str, str, str], dict[str, str]]:
    """(protocol, axes, rule) → column → cell, of every table of rules in a Markdown board."""
    found, header = {}, []
    protocol = axes = ""
    for line in text.splitlines():
        if line.startswith("#"):
            name, _, axes = line.lstrip("# ").partition(": ")
            protocol = name
        elif line.startswith("| tier"):
            header = [cell.strip() for cell in line.strip("|").split("|")]
        elif header and (match := re.match(r"\| *[^|]* *\| \[([\w-]+)\]", line)):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            found[protocol, axes, match[1]] = dict(zip(header, cells, strict=True))
        elif not line.startswith("|"):
            header = []
    return found
