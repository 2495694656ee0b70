"""What to run next: the cells that a board still misses, those first that tell most for their time."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf
from pathlib import Path
from statistics import median

from hebbbench import registry
from hebbbench.board import sift
from hebbbench.cell import Cell, cells, parse_axes, parse_seeds
from hebbbench.data import pins, status
from hebbbench.data.places import resolve_cache
from hebbbench.errors import HebbBenchError, ProtocolError, ResultError, RuleError
from hebbbench.options import RUNS
from hebbbench.outlines import Outlines
from hebbbench.plan import CellStatus, Sources, gather, plan
from hebbbench.prices import Prices, network_work
from hebbbench.progress import duration
from hebbbench.record.store import holds, load_own, result_path
from hebbbench.report import another, table

CONTROLS = ("bp", "random", "sign")
"""The rules without which no other row can be read."""

LISTED = 40
"""Cells a listing shows, at most."""


@dataclass(frozen=True)
class Waiting:
    """A cell that waits to be run.

    Attributes:
        seconds: what it may take by earlier results; None if they do not tell.
        work: operations that training its network takes as the protocol has it; infinite if nobody can count them.
    """

    cell: Cell
    begun: bool
    seconds: float | None
    work: float = inf

    @property
    def compared(self) -> bool:
        """Whether other rows are read against it: a control, or a rule with a published number at these axis values."""
        name, axes = self.cell.rule_name, self.cell.axes
        rows = self.cell.protocol.published
        return name in CONTROLS or any(row.rule == name and row.axes.items() <= axes.items() for row in rows)

    @property
    def rank(self) -> float:
        """Its protocol's at these axis values; infinite if it has none."""
        priority = self.cell.protocol.priority
        return inf if priority is None or not priority.axes.items() <= self.cell.axes.items() else priority.rank

    def precedence(self) -> tuple[float, ...]:
        """The order of value, smallest first: what is begun is finished; then a first seed of everything before
        second ones; of these, what others are compared with; then network by network, by rank and the small before
        the large; of one network the cheap before the dear, the unknown last.
        """
        seeds, epochs = self.cell.protocol.seeds, self.cell.recipe.training.epochs
        turn = seeds.index(self.cell.seed) if self.cell.seed in seeds else len(seeds)
        seconds = inf if self.seconds is None else self.seconds
        return not self.begun, turn, not self.compared, self.rank, self.work, seconds, epochs


def missing(
    results: Path,
    cache: Path | None = None,
    *,
    protocol: str | None = None,
    rules: Sequence[str] = (),
    seeds: Sequence[str] = (),
    axes: Sequence[str] = (),
) -> tuple[list[Waiting], list[str]]:
    """The cells that the board of `results` misses, in order of value, and why others of them cannot be run here.

    Args:
        protocol, rules, seeds, axes: only these, as on the command line; everything if not given.

    Raises:
        HebbBenchError: a name or value does not exist.
    """
    sources = gather(results)
    if protocol is not None and protocol not in sources.protocols:
        registry.protocol(protocol)
        raise ProtocolError(f"--missing looks at the protocols of the board; '{protocol}' is none of them.")
    wanted = {registry.rule_path(rule).stem for rule in rules if rule != "all"}
    chosen = {
        name: (set(parse_seeds(list(seeds) or ["all"], found)), points)
        for name, found in sources.protocols.items()
        if protocol in (None, name) and (points := _points(list(axes), name, sources, protocol)) is not None
    }
    if not chosen:
        raise ProtocolError(f"no protocol of the board takes {' '.join(f'--axis {text}' for text in axes)}.")
    if not any(allowed & set(sources.protocols[name].seeds) for name, (allowed, _) in chosen.items()):
        raise ProtocolError(f"no board counts seed {', '.join(seeds)}. Leave --seed out, or name seeds of a protocol.")

    def asked(entry: CellStatus) -> bool:
        if entry.state != "missing" or not entry.known or entry.protocol not in chosen:
            return False
        allowed, fixed = chosen[entry.protocol]
        return entry.seed in allowed and (not wanted or entry.rule in wanted) and fixed.items() <= entry.axes.items()

    found, refused = [], []
    rows = groupby(
        filter(asked, plan(sources, sift(sources))), key=lambda entry: (entry.protocol, entry.axes, entry.rule)
    )
    for (name, values, rule), row in rows:
        try:
            found += cells(sources.protocols[name], [rule], [entry.seed for entry in row], values)
        except HebbBenchError as error:
            refused.append(f"{name} · {rule}: {error}")
    return queue(found, sources, cache), list(dict.fromkeys(refused))


def asked_for(protocol: str | None, rules: Sequence[str], seeds: list[str], axes: list[str]) -> list[Waiting]:
    """The cells named on the command line, in its order.

    Raises:
        HebbBenchError: a name, a value or a recipe is wrong, or no protocol or rule is named.
    """
    if protocol is None or not rules:
        lacking = "--protocol" if protocol is None else "--rule"
        raise ProtocolError(f"{lacking} is missing. Name a protocol and a rule, or let --missing choose.")
    found = registry.protocol(protocol)
    every = found.rules or registry.rule_names()
    asked = [name for rule in rules for name in (every if rule == "all" else [rule])]
    by_file: dict[Path, str] = {}
    for name in asked:
        by_file.setdefault(registry.rule_path(name).resolve(), name)
    named = list(by_file.values())
    _check_names(named)
    planned = cells(found, named, parse_seeds(seeds, found), parse_axes(axes, found))
    if not planned:
        varied = [f"{name} for {', '.join(axis.rules)} alone" for name, axis in found.axes.items() if axis.rules]
        raise ProtocolError(
            f"{', '.join(named)}: not measured at {' '.join(axes)}. Protocol '{protocol}' varies "
            f"{' and '.join(varied)}; other rules stand at the first value."
        )
    return [Waiting(cell, False, None) for cell in planned]


def _check_names(rules: Sequence[str]) -> None:
    """Refuse two files of one name, whose results would lie in one place.

    Raises:
        RuleError: there are two.
    """
    seen: dict[str, Path] = {}
    for rule in rules:
        path = registry.rule_path(rule)
        if seen.setdefault(path.stem, path) != path:
            raise RuleError(f"two rules are called '{path.stem}': {seen[path.stem]} and {path}. Rename one.")


def whole_row(planned: Sequence[Cell], protocol: str, results: Path) -> str:
    """The command that completes what was run: all seeds, beside a rule to compare with."""
    rule = planned[0].rule
    other = "bp" if rule != "bp" else "random"
    where = [] if results == RUNS else ["--results", str(results)]
    command = ["hebbbench", "run", "--protocol", protocol, "--rule", rule, "--rule", other, "--seed", "all", *where]
    return shlex.join(command)


def _points(axes: list[str], name: str, sources: Sources, protocol: str | None) -> dict[str, object] | None:
    """The axis values asked for; None for a protocol that has no such axis, unless it was named."""
    try:
        return dict(parse_axes(axes, sources.protocols[name]))
    except ProtocolError:
        if protocol is not None:
            raise
        return None


def queue(planned: Iterable[Cell], sources: Sources, cache: Path | None) -> list[Waiting]:
    """The cells in order of value, each with what it may take."""
    outlines = Outlines(cache)
    prices = Prices((item.result for item in sources.stored if item.result is not None), sources.protocols, outlines)
    checkpoints = {path.stem for path in (resolve_cache(cache) / "checkpoints").glob("*.pt")}
    waiting = []
    for cell in planned:
        work = network_work(cell.work, outlines)
        begun = bool(checkpoints) and _is_begun(cell, checkpoints)
        waiting.append(Waiting(cell, begun, prices.seconds(cell), inf if work is None else work))
    outlines.keep()
    return sorted(waiting, key=Waiting.precedence)


def _is_begun(cell: Cell, checkpoints: set[str]) -> bool:
    data = None if cell.unlabelled else pins().get(cell.protocol.data.dataset)
    return data is not None and cell.identity(data) in checkpoints


PATIENCE = 30 * 24 * 3600.0
"""Seconds of all missing cells beyond which their sum says nothing."""


def headline(waiting: Sequence[Waiting], results: Path) -> str:
    """One line: how many cells, and how long they may take: in all, or each where that is beyond patience."""
    if not waiting:
        return f"Nothing is missing under {results}."
    known = [item.seconds for item in waiting if item.seconds is not None]
    begun, unknown = sum(item.begun for item in waiting), len(waiting) - len(known)
    parts = [f"{len(waiting)} cells are missing under {results}"]
    parts += [f"{begun} of them begun"] * bool(begun)
    if known:
        if sum(known) < PATIENCE:
            takes = f"about {duration(sum(known))} in all"
        else:
            takes = f"half of them up to about {duration(median(known))} each"
        parts.append(f"{takes} on the devices of earlier results")
    parts += [f"{unknown} of unknown length"] * bool(unknown)
    return ", ".join(parts) + "."


def listing(
    waiting: Sequence[Waiting], results: Path, data_root: Path | None, cache: Path | None, force: bool = False
) -> str:
    """What would be run, in order, and whether its data are here.

    Args:
        force: cells run whatever there is of them.
    """
    if not waiting:
        return "Nothing to run."
    data = status(data_root, cache)
    here = {item.name: item.embedded or item.found is not None or item.cached is not None for item in data}
    rows = [
        (
            number,
            item.cell,
            "" if force else _state(item, results),
            "?" if item.seconds is None else duration(item.seconds),
            "here" if all(here.get(name, True) for name in item.cell.datasets) else "to be downloaded, else skipped",
        )
        for number, item in enumerate(waiting[:LISTED], start=1)
    ]
    more = [f"… and {len(waiting) - LISTED} more"] if len(waiting) > LISTED else []
    return "\n".join([table(rows, ["", "cell", "state", "about", "data"]), *more])


def _state(item: Waiting, results: Path) -> str:
    """How far a cell is. The data are left out of account."""
    cell = item.cell
    path = result_path(results, cell.protocol.name, cell.rule_name, cell.axes, cell.seed)
    if item.begun or not holds(path):
        return "begun" if item.begun else ""
    try:
        found = load_own(path, results)
    except ResultError:
        return "damaged"
    if another(found, cell) is not None:
        return "to be replaced"
    return "done" if found.status in ("ok", "diverged") else found.status
