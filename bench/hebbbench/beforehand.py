"""What a session looks at before anything runs: mistakes, results that will be replaced, and what may be a slip."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from hebbbench import registry
from hebbbench.board.text import spans
from hebbbench.cell import Cell
from hebbbench.errors import HebbBenchError, ResultError
from hebbbench.protocol import Protocol
from hebbbench.record.store import check_exists, holds, load_own, result_path
from hebbbench.report import another
from hebbbench.world import World


def check_missing(results: Path, protocol: str | None, rules: Sequence[str]) -> None:
    """Refuse to look for what is missing where nothing could be: in no folder, or of a rule that no board waits for.

    Raises:
        HebbBenchError: there is no such folder or rule, or the rule is not in the registry.
    """
    check_exists(results)
    for rule in rules:
        if rule != "all" and registry.rule_path(rule).stem not in registry.rule_names():
            command = ["hebbbench", "run", "--protocol", protocol or "PROTOCOL", "--rule", rule, "--seed", "all"]
            raise HebbBenchError(
                f"--missing looks at what the board misses, and it has no rule '{rule}' from outside the registry. "
                f"Run it by name: {shlex.join(command)}"
            )


def check(planned: Sequence[Cell], world: World) -> None:
    """Build one cell of each kind, so that what is wrong comes to light before anything has run.

    Raises:
        HebbBenchError: rule, recipe, architecture and protocol do not fit together.
    """
    from hebbbench.training.soundness import check_cell

    divided = all_rows(world)
    for cell in {(cell.rule, str(cell.axes)): cell for cell in planned}.values():
        check_cell(cell)
        if divided is not None:
            divided(cell)


def check_files(planned: Sequence[Cell]) -> None:
    """Import the rules that come from outside the registry, and build nothing.

    Raises:
        RuleError: a file cannot be imported, or does not define exactly one rule.
    """
    for rule in {cell.rule for cell in planned if cell.rule_name not in registry.rule_names()}:
        registry.rule(rule)


def replacements(planned: Sequence[Cell], results: Path, force: bool = False) -> list[str]:
    """Read what there is in these cells' places already; a line for each kind of result that they will replace.

    Args:
        force: the cells run whatever there is, and a damaged file is no obstacle.

    Raises:
        ResultError: a file is no result, which is told now and not when its turn comes.
    """
    kinds: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in planned:
        path = result_path(results, cell.protocol.name, cell.rule_name, cell.axes, cell.seed)
        if not holds(path):
            continue
        try:
            other = another(load_own(path, results), cell)
        except ResultError:
            if not force:
                raise
            continue
        if other is not None:
            kinds.setdefault((cell.protocol.name, cell.rule_name, other), []).append(cell)
    return [
        f"{own[0]}: replaces the result of {other}"
        if len(own) == 1
        else f"{protocol} · {rule}: replaces the results of {len(own)} cells, of {other}"
        for (protocol, rule, other), own in kinds.items()
    ]


def damaged(planned: Sequence[Cell], results: Path) -> dict[str, str]:
    """The cells in whose places lies what is no result of a run, and what is wrong with it."""
    found = {}
    for cell in planned:
        path = result_path(results, cell.protocol.name, cell.rule_name, cell.axes, cell.seed)
        if holds(path):
            try:
                load_own(path, results)
            except ResultError as error:
                found[str(cell)] = str(error)
    return found


def warnings(planned: Sequence[Cell]) -> list[str]:
    """What may be meant, and may be a slip: a recipe for a name like the protocol's, a hyper-parameter that no recipe
    sets, a seed that no board counts."""
    pairs = dict.fromkeys((cell.rule, cell.protocol.name) for cell in planned)
    found = [stray for pair in pairs if (stray := registry.stray_recipes(*pair)) is not None]
    for protocol in {cell.protocol.name: cell.protocol for cell in planned}.values():
        own = [cell for cell in planned if cell.protocol.name == protocol.name]
        found += [
            f"hyperparameters.{name} of {protocol.name} is in no rule's recipe for it, so it changes nothing"
            for name in _unused(protocol, own)
        ]
        seeds = {cell.seed for cell in own}
        others = spans(sorted(seeds - set(protocol.seeds)))
        if others:
            what = (
                f"seed {others[0]} is not one"
                if len(seeds - set(protocol.seeds)) == 1
                else f"seeds {', '.join(others)} are none"
            )
            found.append(f"{what} of {protocol.name}'s, {', '.join(map(str, protocol.seeds))}: no board counts that")
    return found


def _unused(protocol: Protocol, planned: Sequence[Cell]) -> list[str]:
    """Hyper-parameters that it fixes, and that neither a recipe in the registry nor one of these cells' sets."""
    if not protocol.hyperparameters:
        return []
    kept = [registry.recipe(rule, protocol.name) for rule in registry.rule_names()]
    used = {name for recipe in kept if recipe is not None for name in recipe.hyperparameters}
    used |= {name for cell in planned for name in cell.recipe.hyperparameters}
    return [name for name in protocol.hyperparameters if name not in used]


def all_rows(world: World) -> Callable[[Cell], bool] | None:
    """What says whether a cell's rule must be shown the rows of all processes; None for a process by itself."""
    if world.size == 1:
        return None
    from hebbbench.checks.shares import sees_all_rows

    return sees_all_rows
