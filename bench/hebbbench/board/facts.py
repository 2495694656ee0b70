"""What a result says of how it was measured, as flat names and texts, so that two can be laid side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hebbbench.board.text import NOTHING
from hebbbench.record.schema import Environment, Result
from hebbbench.validation import canonical_json

SHOWN_VALUES = 3


def facts(results: Sequence[Result]) -> dict[str, str]:
    """Name → value of everything that might differ; where the results themselves differ, all their values."""
    found: dict[str, list[str]] = {}
    for result in results:
        for name, value in _facts(result).items():
            found.setdefault(name, []).append(value)
    return {name: joined(values) for name, values in found.items()}


def _facts(result: Result) -> dict[str, str]:
    environment = result.environment.model_dump(mode="json", exclude={"commit", "dirty", "routes", "unavailable"})
    recipe = result.recipe
    return {
        "protocol version": str(result.protocol.version),
        "protocol hash": result.protocol.hash[:12],
        "numerics version": str(result.numerics_version),
        "rule": result.rule.name,
        "rule code": result.rule.source_hash[:12],
        **({} if result.architecture is None else {"architecture code": result.architecture.source_hash[:12]}),
        "recipe from": recipe.provenance + (f", {recipe.search.trials} trials" if recipe.search is not None else ""),
        **flat(recipe.identity(), "recipe"),
        **{f"data {split}": digest[:12] for split, digest in result.data.identity.items()},
        "commit": commit(result.environment),
        **flat(environment, "environment"),
    }


def flat(tree: Mapping[str, Any], where: str = "") -> dict[str, str]:
    """Dotted name → value of every leaf, as text; an absent value is left out."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        name = f"{where}.{key}" if where else key
        if isinstance(value, Mapping):
            found |= flat(value, name)
        elif value is not None:
            found[name] = value if isinstance(value, str) else canonical_json(value)
    return found


def differing(ours: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Name → both values, where they are not the same, in the order of the names."""
    names = dict.fromkeys([*ours, *theirs])
    pairs = {name: (ours.get(name, NOTHING), theirs.get(name, NOTHING)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def commit(environment: Environment) -> str:
    """The commit that measured, in short."""
    name = environment.commit[:7] if environment.commit else "unknown"
    return f"{name} with changes" if environment.dirty else name


def joined(values: Iterable[str]) -> str:
    """The different ones among the values, in order; a few of them if there are many."""
    distinct = sorted(set(values))
    more = [f"{len(distinct) - SHOWN_VALUES} more"] if len(distinct) > SHOWN_VALUES else []
    return " / ".join([*distinct[:SHOWN_VALUES], *more])
