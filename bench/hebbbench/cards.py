"""Plausibility cards: measured once for each state of a rule's code, then read from the cache without torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

from hebbbench import registry
from hebbbench.cell import Cell
from hebbbench.data.places import resolve_cache
from hebbbench.errors import HebbBenchError, ResultError, RuleError
from hebbbench.files import check_writable, write_atomic
from hebbbench.record.card import CARD_VERSION, Card
from hebbbench.record.schema import NUMERICS_VERSION
from hebbbench.validation import canonical_json


def kept(rule: str, cache: Path | None = None) -> Card | None:
    """The card of a rule, by name or path, as the cache has it for the rule's code of today; None if it has none.

    Raises:
        HebbBenchError: there is no such rule, or its file is not valid Python.
    """
    try:
        return Card.model_validate_json(_place(rule, cache).read_bytes())
    except (OSError, ValueError):
        return None


def card(rule: str, cache: Path | None = None) -> Card:
    """The card of a rule, by name or path: from the cache, or measured now and kept there.

    Raises:
        HebbBenchError: there is no such rule, or it cannot be measured.
    """
    found = kept(rule, cache)
    if found is not None:
        return found
    from hebbbench.checks import measured_card

    try:
        found = measured_card(rule)
    except HebbBenchError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or "no message"
        raise RuleError(f"no card can be measured of rule '{rule}': {type(error).__name__}: {reason}") from error
    with contextlib.suppress(ResultError):  # a cache that cannot be written costs time, not the card
        write_atomic(_place(rule, cache), (canonical_json(found.model_dump(mode="json")) + "\n").encode(), "--cache")
    return found


def card_of_cell(cell: Cell, cache: Path | None, say: Callable[[str], None]) -> Card | None:
    """The card for the result of a cell that has run; None, with a line to `say`, if there is none to be had."""
    try:
        if registry.rule_source_hash(cell.rule) != cell.source_hash:
            raise RuleError(f"the file of rule '{cell.rule}' was changed while the cell ran, so its card is left out.")
        return card(cell.rule, cache)
    except HebbBenchError as error:
        say(f"  warning: {error}")
        return None


def warn_unkept(rules: Iterable[str], cache: Path | None, say: Callable[[str], None]) -> None:
    """A line to `say` if the cards of these rules are to be measured and cannot be kept."""
    if all(kept(rule, cache) is not None for rule in rules):
        return
    try:
        check_writable(resolve_cache(cache), "cache")
    except ResultError as error:
        say(f"  warning: {error} Else cards are measured anew every time.")


def _place(rule: str, cache: Path | None) -> Path:
    versions = f"{CARD_VERSION}.{NUMERICS_VERSION}"
    return resolve_cache(cache) / "cards" / versions / f"{registry.rule_source_hash(rule)}.json"
