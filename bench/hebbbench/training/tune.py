"""Searching a recipe on the validation split. The test split stays closed, and the cost is written down."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, product
from typing import Any

import yaml

from hebbbench import registry
from hebbbench.cell import Cell, cells, parse_axes
from hebbbench.errors import NothingScored, ProtocolError, RunInterrupted
from hebbbench.progress import Reporter, Silent, duration
from hebbbench.protocol import Protocol
from hebbbench.recipe import Recipe, Search
from hebbbench.report import point
from hebbbench.sections import AxisValue
from hebbbench.training.run import Settings, load_data
from hebbbench.training.soundness import check_cell
from hebbbench.training.trial import Trial, tried
from hebbbench.validation import canonical_json, parse_values, validate

TUNING_SEEDS = (1000, 1001, 1002)
"""Seeds of the search; no protocol ranks them."""

ALL = "all"
"""What `--axis` says for every point of a protocol's axes."""


def search(
    protocol: Protocol,
    rule: str,
    space: dict[str, list[Any]],
    settings: Settings,
    seeds: tuple[int, ...] = TUNING_SEEDS,
    reporter: Reporter | None = None,
    axes: dict[str, AxisValue] | None = None,
) -> tuple[Recipe, list[Trial]]:
    """Every combination of `space` on the validation split; the best as a recipe that says what it cost.

    What a cell scored is kept in the cache, so a search that was interrupted goes on.

    Args:
        space: dotted recipe keys, such as optimizer.lr or hyperparameters.temperature, and the values to try.
            The rule's own recipe for the protocol gives everything else.
        reporter: is told of each trial as it ends.
        axes: fixed axis values; a score is the mean over all values of an axis not named.

    Returns:
        The best recipe, and all trials.

    Raises:
        ProtocolError: a key does not exist, is frozen, or is set by the protocol or an axis; or no accuracy is scored.
        NothingScored: every trial diverged or failed.
        RunInterrupted: a stop was asked for; the same search goes on from there.
    """
    out = reporter or Silent()
    if not protocol.scores_accuracy:
        raise ProtocolError(
            f"protocol '{protocol.name}' measures {protocol.headline}, which is no score: there is nothing to search "
            "for. Copy a recipe from a protocol that scores accuracy, or run each setting and look."
        )
    _refuse_fixed(protocol, space)
    if not protocol.data.validation:
        raise ProtocolError(
            f"protocol '{protocol.name}' holds out no validation samples (data.validation = 0), so nothing can be "
            "tuned on it. Tune under a protocol of the same network that holds some out, and copy the recipe."
        )
    own = registry.recipe(rule, protocol.name) or Recipe(provenance="default")
    base = own.model_dump(mode="json", exclude_none=True, exclude={"provenance", "source", "search"})
    choices = [dict(zip(space, values, strict=True)) for values in product(*space.values())]
    planned = [cells(protocol, [rule], list(seeds), axes or {}, _with(protocol, base, choice)) for choice in choices]
    if not planned[0]:
        raise ProtocolError(
            f"rule '{rule}' is not measured at {point(axes or {})} in protocol '{protocol.name}': an axis that varies "
            "for other rules alone stands at its first value. Leave it out of --axis."
        )
    chosen = any(key.startswith("hyperparameters") for key in space)
    for first, *_ in planned:
        check_cell(first, "--try" if chosen else None)
    trials: list[Trial] = []
    try:
        needed = {cell.datasets: cell for cell in chain(*planned)}
        data = {names: load_data(cell, settings, out).identity for names, cell in needed.items()}
        out.phase("searching", sum(map(len, planned)))
        for choice, trial_cells in zip(choices, planned, strict=True):
            trial, anew = tried(
                choice, [(cell, cell.identity(data[cell.datasets])) for cell in trial_cells], settings, out
            )
            trials.append(trial)
            took = duration(trial.seconds) + ("" if anew else ", done before")
            out.say(f"[{len(trials)}/{len(planned)}] {trial} ({took})")
            leading = _best(trials)
            out.advance(0, "" if leading is None else f"best: {100 * (leading.score or 0):.2f} %")
    except KeyboardInterrupt as error:
        raise RunInterrupted("stopped. Run the same command again to go on from there.") from error
    finally:
        out.end()
    best = _best(trials)
    if best is None:
        last = (trials[-1].reason or "").removesuffix(".")
        remedy = (
            "Move the range: smaller rates, say." if last.startswith("diverged") else f"Try: hebbbench check {rule}"
        )
        raise NothingScored(f"no trial of rule '{rule}' could be scored; the last said: {last}. {remedy}")
    ledger = Search(
        trials=sum(len(trial_cells) for trial_cells in planned),
        seconds=round(sum(trial.seconds for trial in trials), 1),
        split="validation",
        space="; ".join(f"{key} in {canonical_json(values)}" for key, values in space.items()) + _where(planned[0]),
        scores={trial.name: None if trial.score is None else round(trial.score, 4) for trial in trials},
    )
    found = _with(protocol, base, best.choice)
    return found.model_copy(update={"provenance": "searched", "search": ledger}), trials


def _refuse_fixed(protocol: Protocol, space: dict[str, list[Any]]) -> None:
    """Refuse keys that a protocol or its axes set whatever a recipe says: all trials would be one."""
    by_axis = {
        axis.path.removeprefix("training.").replace("architecture.options.", "architecture."): name
        for name, axis in protocol.axes.items()
    }
    for key in space:
        if key in by_axis:
            name = by_axis[key]
            raise ProtocolError(
                f"--try {key}: the axis '{name}' of protocol '{protocol.name}' sets it, to "
                f"{', '.join(map(str, protocol.axes[name].values))}. Choose one with --axis {name}=…"
            )
        section, _, name = key.partition(".")
        if section == "hyperparameters" and name in protocol.hyperparameters:
            raise ProtocolError(
                f"--try {key}: protocol '{protocol.name}' sets it, to {protocol.hyperparameters[name]}. Leave it out."
            )


def fixed_axes(protocol: Protocol, rule: str, texts: Sequence[str]) -> dict[str, AxisValue]:
    """The axis values at which to search, from the command line: name=value, or `all` for the rest.

    Raises:
        ProtocolError: an axis or value does not exist, or one is to be chosen that has not been.
    """
    named = parse_axes([text for text in texts if text != ALL], protocol)
    name = registry.rule_path(rule).stem
    varied = {
        key: axis.values
        for key, axis in protocol.axes.items()
        if key not in named and len(axis.values) > 1 and (not axis.rules or name in axis.rules)
    }
    if varied and ALL not in texts:
        choices = "; ".join(f"{key}={', '.join(map(str, values))}" for key, values in varied.items())
        points = len(list(product(*varied.values())))
        example = " ".join(f"--axis {key}={values[0]}" for key, values in varied.items())
        raise ProtocolError(
            f"protocol '{protocol.name}' varies for rule '{name}': {choices}. Say where to search, as in {example}, or "
            f"give --axis {ALL} for the mean over all {points} points, each trained with each seed of each trial."
        )
    return named


def _where(trial_cells: Sequence[Cell]) -> str:
    """The axis point that was searched, to stand behind the space; nothing without axes."""
    points = list(dict.fromkeys(point(cell.axes) for cell in trial_cells))
    if len(points) > 1:
        return f"; mean over {', '.join(points)}"
    return f"; at {points[0]}" if points[0] else ""


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
    """`base` with the chosen values; a section the recipe lacks starts from the protocol's, a missing rest as the
    optimizer of the plastic layers, which stands for it."""
    plain: dict[str, Any] = {"provenance": "default", **base}
    training = protocol.training.model_dump(mode="json", exclude_none=True)
    for key, value in choice.items():
        section, _, field = key.partition(".")
        if not field:
            plain[section] = value
            continue
        start = plain.get(section) or training.get(section)
        if start is None and section == "rest":
            start = dict(plain.get("optimizer") or training["optimizer"])
            start.pop("clip", None)
        plain[section] = {**(start or {}), field: value}
    return validate(Recipe, plain, "search")


def as_yaml(protocol: Protocol, recipe: Recipe) -> str:
    """A recipe as it stands in a rule's YAML file, under `recipes`."""
    plain = recipe.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    plain = {key: value for key, value in plain.items() if value != {}}
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
        if key in space or len({repr(value) for value in parsed}) < len(parsed):
            what = f"names {key} a second time" if key in space else "repeats a value"
            raise ProtocolError(f"--try '{text}' {what}. Give each key once, with each value once.")
        space[key] = parsed
    return space
