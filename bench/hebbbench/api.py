"""HebbBench as a library: one cell, measured in full."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from hebbbench import registry
from hebbbench.cards import card_of_cell
from hebbbench.cell import cells
from hebbbench.errors import HebbBenchError, ProtocolError
from hebbbench.progress import Reporter, Silent
from hebbbench.protocol import Protocol
from hebbbench.recipe import Recipe
from hebbbench.record.schema import Result
from hebbbench.sections import AxisValue
from hebbbench.training.run import Settings, run_cell
from hebbbench.validation import validate


def run(
    protocol: str | Path | Protocol,
    rule: str | Path,
    *,
    seed: int = 0,
    axes: dict[str, AxisValue] | None = None,
    recipe: Recipe | dict[str, Any] | None = None,
    results: str | Path | None = None,
    settings: Settings | None = None,
    reporter: Reporter | None = None,
) -> Result:
    """Run one cell and return its result.

    Args:
        protocol: a registered name, the path of a YAML file, or a protocol.
        rule: a registered name or the path of a Python file that defines one rule.
        seed: of the cell.
        axes: a value for every axis of the protocol.
        recipe: instead of the rule's own recipe for the protocol.
        results: folder to keep the result in; a finished cell found there is returned and not run again.
        settings: device, data root, cache.
        reporter: where progress goes; silent if None.

    Raises:
        HebbBenchError: a name, a recipe or the data is wrong; nothing has been trained.
    """
    found = protocol if isinstance(protocol, Protocol) else registry.protocol(str(protocol))
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ProtocolError(f"seed = {seed!r} is no whole number from 0; protocol '{found.name}' has {found.seeds}.")
    for name, value, kind in (("settings", settings, Settings), ("reporter", reporter, Reporter)):
        if value is not None and not isinstance(value, kind):
            raise HebbBenchError(f"{name} = {value!r} is no {kind.__name__}. Give one, or leave it out.")
    if isinstance(recipe, dict):
        recipe = validate(Recipe, recipe, "recipe")
    asked = cells(found, [str(rule)], [seed], axes or {}, recipe)
    if len(asked) != 1:
        values = "; ".join(f"{name}: {axis.values}" for name, axis in found.axes.items())
        raise ProtocolError(
            f"protocol '{found.name}' has {len(asked)} cells of rule '{rule}' at axes = {axes or {}}, and one is run "
            f"here. Name a value for each axis: {values}."
        )
    (cell,) = asked
    settings, reporter = settings or Settings(), reporter or Silent()
    measure = partial(card_of_cell, cell, settings.cache, reporter.say)
    return run_cell(cell, None if results is None else Path(results), settings, reporter, card=measure)
