"""Which cells a board needs, and which stored result fills each.

The plan comes first, so a cell nobody ran is visible: every protocol × axis values × rule × seed, where
the rules of a protocol are its controls, those whose recipe file names it, and those that have any result
there.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from hebbbench import registry
from hebbbench.protocol import Protocol
from hebbbench.recipe import Recipe
from hebbbench.record import store
from hebbbench.record.schema import Result
from hebbbench.record.store import Stored, result_path
from hebbbench.sections import AxisValue

Axes = dict[str, AxisValue]
State = Literal["done", "failed", "missing"]


@dataclass(frozen=True)
class KnownRule:
    """A rule of this repository: the hash of its code, and its recipes by protocol name."""

    source_hash: str
    recipes: Mapping[str, Recipe]

    def recipe_for(self, protocol: str) -> Recipe | None:
        """The recipe of that protocol, else `default`, else none."""
        return self.recipes.get(protocol, self.recipes.get("default"))


@dataclass(frozen=True)
class KnownArchitecture:
    """The fingerprint of a network's code, and of the code behind results that do not say which it was."""

    source_hash: str
    first_hash: str | None


@dataclass(frozen=True)
class Sources:
    """Everything a board is computed from. `root` is the results folder; it shortens paths in messages.

    `given` has what names a protocol on the command line, where that is a path and not its name.
    """

    protocols: Mapping[str, Protocol]
    rules: Mapping[str, KnownRule]
    stored: tuple[Stored, ...]
    root: Path
    given: Mapping[str, str] = field(default_factory=dict)
    architectures: Mapping[str, KnownArchitecture] = field(default_factory=dict)

    @property
    def damaged(self) -> list[str]:
        """What is wrong with each file that is no result."""
        return [item.problem for item in self.stored if item.problem is not None]

    def place(self, path: Path) -> str:
        """A stored file's path, starting at `results/` wherever the folder lies on this machine."""
        return f"results/{path.relative_to(self.root).as_posix()}"


@dataclass(frozen=True)
class Ignored:
    """A file under the results folder that does not count, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Sifted:
    """The stored results that count (by protocol, rule, axes, seed) and the files that do not (by path)."""

    current: tuple[Result, ...]
    ignored: tuple[Ignored, ...]


@dataclass(frozen=True)
class CellStatus:
    """One planned cell.

    Attributes:
        known: whether the rule's file is in this repository.
        note: why the cell failed, or why the result that lies there does not count.
        given: what names the protocol on the command line.
    """

    protocol: str
    axes: Axes
    rule: str
    seed: int
    known: bool
    state: State
    note: str = ""
    given: str = ""


@dataclass(frozen=True)
class Tally:
    """How many cells are planned, and how many of those are done, failed and missing."""

    planned: int
    done: int
    failed: int
    missing: int


def gather(results: Path) -> Sources:
    """The registry's protocols and rules, and every result file under `results`.

    Raises:
        HebbBenchError: a protocol, recipe or rule file of the repository is malformed.
    """
    return Sources(
        protocols={name: registry.protocol(name) for name in registry.protocol_names()},
        rules={
            name: KnownRule(registry.rule_source_hash(name), registry.recipes(name)) for name in registry.rule_names()
        },
        stored=tuple(store.scan(results)) if results.is_dir() else (),
        root=results,
        architectures=_architectures(registry.architecture_names()),
    )


def _architectures(names: Iterable[str]) -> dict[str, KnownArchitecture]:
    return {
        name: KnownArchitecture(registry.architecture_source_hash(name), registry.first_architecture_hash(name))
        for name in names
    }


def narrowed(sources: Sources, protocols: Iterable[str]) -> Sources:
    """The same for these protocols alone: names, or paths of YAML files, which may be of protocols from elsewhere.

    Raises:
        HebbBenchError: there is no such protocol or network, or its file is malformed.
    """
    found = {given: registry.protocol(given) for given in protocols}
    chosen = {protocol.name: protocol for protocol in found.values()}
    given = {protocol.name: text for text, protocol in found.items()}
    stored = tuple(item for item in sources.stored if item.path.relative_to(sources.root).parts[0] in chosen)
    networks = {protocol.at(axes).architecture.name for protocol in chosen.values() for axes in axis_points(protocol)}
    return replace(sources, protocols=chosen, stored=stored, given=given, architectures=_architectures(networks))


def axis_points(protocol: Protocol) -> list[Axes]:
    """Every combination of the protocol's axis values, in its own order; [{}] without axes."""
    values = [axis.values for axis in protocol.axes.values()]
    return [dict(zip(protocol.axes, point, strict=True)) for point in itertools.product(*values)]


def headline(result: Result, protocol: Protocol) -> float | None:
    """The protocol's headline metric (a fraction), if the cell finished and could measure it."""
    return value_of(result, protocol.headline)


def value_of(result: Result, name: str) -> float | None:
    """A metric, if the cell finished and could measure it."""
    metric = result.metrics.get(name)
    return metric.value if result.status == "ok" and metric is not None else None


def shortfall(result: Result, protocol: Protocol) -> str | None:
    """Why a cell that ran has no headline metric; None if it has one."""
    if headline(result, protocol) is not None:
        return None
    if result.reason is not None:
        return f"{result.status}: {result.reason}"
    metric = result.metrics.get(protocol.headline)
    return f"no {protocol.headline}: {metric.reason if metric is not None else 'it was not recorded'}"


def plan(sources: Sources, sifted: Sifted) -> list[CellStatus]:
    """Every cell the board needs, by protocol, axis values, rule and seed, each done, failed or missing.

    Args:
        sifted: which stored results count, from `hebbbench.board.sift(sources)`.
    """
    ignored = {item.path: item.reason for item in sifted.ignored}
    filled = {_place(r.protocol.name, r.rule.name, r.axes, r.seed): r for r in sifted.current}
    cells = []
    for name, protocol in sorted(sources.protocols.items()):
        for axes, rule, seed in itertools.product(
            axis_points(protocol), planned_rules(sources, protocol), sorted(protocol.seeds)
        ):
            if not protocol.takes(rule, axes):
                continue
            known, given = rule in sources.rules, sources.given.get(name, name)
            place = _place(name, rule, axes, seed)
            result = filled.get(place)
            if result is None:
                cells.append(CellStatus(name, axes, rule, seed, known, "missing", ignored.get(place, ""), given))
            else:
                note = shortfall(result, protocol)
                cells.append(CellStatus(name, axes, rule, seed, known, "failed" if note else "done", note or "", given))
    return cells


def _place(protocol: str, rule: str, axes: Axes, seed: int) -> str:
    return result_path(Path("results"), protocol, rule, axes, seed).as_posix()


def planned_rules(sources: Sources, protocol: Protocol) -> list[str]:
    """The rules of a protocol's board, sorted."""
    named = {rule for rule, known in sources.rules.items() if protocol.name in known.recipes}
    results = (item.result for item in sources.stored if item.result is not None)
    seen = {result.rule.name for result in results if result.protocol.name == protocol.name}
    return sorted({*protocol.controls, *named, *seen})


def tally(cells: Iterable[CellStatus]) -> Tally:
    """The cells, counted."""
    states = Counter(cell.state for cell in cells)
    return Tally(states.total(), states["done"], states["failed"], states["missing"])


def missing_by_protocol(cells: Iterable[CellStatus]) -> dict[str, list[CellStatus]]:
    """Protocol name → its missing cells, in plan order; protocols that miss none are left out."""
    grouped: defaultdict[str, list[CellStatus]] = defaultdict(list)
    for cell in cells:
        if cell.state == "missing":
            grouped[cell.protocol].append(cell)
    return dict(grouped)
