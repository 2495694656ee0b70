"""Searching a recipe on the validation split. The test split stays closed, and the cost is written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import yaml

from hebbbench import registry
from hebbbench.cell import cells
from hebbbench.errors import ProtocolError
from hebbbench.progress import Silent
from hebbbench.protocol import Protocol
from hebbbench.recipe import Recipe, Search
from hebbbench.training.run import Settings, check_cell, run_cell
from hebbbench.validation import canonical_json, parse_values, validate

TUNING_SEEDS = (1000, 1001, 1002)
"""Seeds of the search; no protocol ranks them."""


@dataclass(frozen=True)
class Trial:
    """One point of the search: what was chosen, and the mean validation accuracy over the tuning seeds."""

    choice: dict[str, Any]
    score: float | None
    reason: str | None

    def __str__(self) -> str:
        told = self.reason if self.score is None else f"{100 * self.score:.2f} % on validation"
        return f"{self.choice}: {told}"


def search(
    protocol: Protocol,
    rule: str,
    space: dict[str, list[Any]],
    settings: Settings,
    seeds: tuple[int, ...] = TUNING_SEEDS,
    tell: Callable[[Trial], None] = lambda trial: None,
) -> tuple[Recipe, list[Trial]]:
    """Every combination of `space` on the validation split; the best as a recipe that says what it cost.

    Args:
        space: dotted recipe keys, such as optimizer.lr or hyperparameters.temperature, and the values to try.
            The rule's own recipe for the protocol gives everything else.
        tell: called after each trial.

    Returns:
        The best recipe, and all trials.

    Raises:
        ProtocolError: a key does not exist or is frozen, or no trial could be scored.
    """
    began = time.perf_counter()
    if not protocol.data.validation:
        raise ProtocolError(
            f"protocol '{protocol.name}' holds out no validation samples, so nothing can be tuned on it."
        )
    own = registry.recipe(rule, protocol.name) or Recipe(provenance="default")
    base = own.model_dump(mode="json", exclude_none=True, exclude={"provenance", "source", "search"})
    choices = [dict(zip(space, values, strict=True)) for values in product(*space.values())]
    planned = [cells(protocol, [rule], list(seeds), {}, _with(protocol, base, choice)) for choice in choices]
    for first, *_ in planned:
        check_cell(first)
    trials = []
    for choice, trial_cells in zip(choices, planned, strict=True):
        scores, reason = [], None
        for cell in trial_cells:
            result = run_cell(cell, None, settings, Silent(), read_test=False)
            metric = result.metrics.get(protocol.headline.replace(".test.", ".validation."))
            if metric is None or metric.value is None:
                reason = result.reason
                break
            scores.append(metric.value)
        trials.append(Trial(choice, sum(scores) / len(scores) if reason is None else None, reason))
        tell(trials[-1])
    best = _best(trials)
    if best is None:
        last = (trials[-1].reason or "").removesuffix(".")
        raise ProtocolError(f"no trial of rule '{rule}' could be scored; the last said: {last}.")
    ledger = Search(
        trials=sum(len(trial_cells) for trial_cells in planned),
        seconds=round(time.perf_counter() - began, 1),
        split="validation",
        space="; ".join(f"{key} in {canonical_json(values)}" for key, values in space.items()),
    )
    chosen = _with(protocol, base, best.choice)
    return chosen.model_copy(update={"provenance": "searched", "search": ledger}), trials


def _best(trials: Sequence[Trial]) -> Trial | None:
    """The first with the highest score; None if none has one."""
    return max((trial for trial in trials if trial.score is not None), key=lambda trial: trial.score or 0, default=None)


def at_the_edge(space: dict[str, list[Any]], trials: Sequence[Trial]) -> list[str]:
    """What is to say of a best value at the end of its range, beyond which a better one may lie."""
    best = _best(trials)
    found = []
    for key, values in space.items():
        numbers = sorted(value for value in values if isinstance(value, int | float) and not isinstance(value, bool))
        if best is not None and len(numbers) > 1 and best.choice[key] in (numbers[0], numbers[-1]):
            end = "smallest" if best.choice[key] == numbers[0] else "largest"
            found.append(f"{key} = {best.choice[key]} is the {end} value tried: widen the range.")
    return found


def _with(protocol: Protocol, base: dict[str, Any], choice: dict[str, Any]) -> Recipe:
    """`base` with the chosen values; a section the recipe lacks starts from the protocol's."""
    plain: dict[str, Any] = {"provenance": "default", **base}
    training = protocol.training.model_dump(mode="json", exclude_none=True)
    for key, value in choice.items():
        section, _, field = key.partition(".")
        if not field:
            plain[section] = value
            continue
        plain[section] = {**(plain.get(section) or training.get(section) or {}), field: value}
    return validate(Recipe, plain, "search")


def as_yaml(protocol: Protocol, recipe: Recipe) -> str:
    """A recipe as it stands in a rule's YAML file, under `recipes`."""
    plain = recipe.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    text: str = yaml.safe_dump({protocol.name: plain}, sort_keys=False, default_flow_style=None, width=110)
    return text


def parse_space(texts: list[str]) -> dict[str, list[Any]]:
    """The search space from the command line: key=v1,v2,… with values as YAML writes them.

    Raises:
        ProtocolError: a text has no key or no value.
    """
    space: dict[str, list[Any]] = {}
    for text in texts:
        key, _, values = text.partition("=")
        parsed = parse_values(values)
        if not key or not parsed:
            raise ProtocolError(f"--try '{text}' is not key=v1,v2,… such as optimizer.lr=0.01,0.1.")
        space[key] = parsed
    return space
