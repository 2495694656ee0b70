"""Which row of the board is meant by a protocol, a rule and axis values, and everything that belongs to it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hebbbench import registry
from hebbbench.board.content import collect
from hebbbench.board.output import read, seen_from
from hebbbench.board.rows import Row, Table
from hebbbench.cell import parse_axes
from hebbbench.errors import ProtocolError, unknown_name
from hebbbench.plan import Axes, Ignored, KnownRule, axis_points, planned_rules
from hebbbench.protocol import Protocol
from hebbbench.record.schema import Result
from hebbbench.record.store import result_path
from hebbbench.validation import canonical_json


@dataclass(frozen=True)
class Subject:
    """What is explained.

    Attributes:
        axes: of the rule's cells. results: those that count, by seed. ignored: files of these cells that do not.
        table, row: where it stands; none under a protocol of alignment, no row without results.
        known: the rule as this repository has it. given: what names the protocol on the command line.
        folder: of results, as seen from the working directory.
    """

    protocol: Protocol
    axes: Axes
    rule: str
    results: tuple[Result, ...]
    ignored: tuple[Ignored, ...]
    table: Table | None
    row: Row | None
    known: KnownRule | None
    given: str
    folder: str

    def path(self, seed: int, folder: str) -> str:
        """Where the result of a seed lies in a folder of results."""
        return result_path(Path(folder), self.protocol.name, self.rule, self.axes, seed).as_posix()


def find(given: str, rule: str, axes: Sequence[str], results: Path, warn: Callable[[str], None]) -> Subject:
    """The row that is meant; or the only one that may be. Of each damaged file among the results `warn` is told.

    Raises:
        HebbBenchError: there is no such protocol, axis or value, the rule is not on that board, or it stands at several
            combinations of axis values and none is named.
    """
    sources = read(results) if given in registry.protocol_names() else read(results, [given])
    for problem in sources.damaged:
        warn(f"warning: {problem}")
    protocol = sources.protocols[given] if given in sources.protocols else next(iter(sources.protocols.values()))
    name = registry.rule_path(rule).stem if rule.endswith(".py") else rule
    if name not in (planned := planned_rules(sources, protocol)):
        command = shlex.join(["hebbbench", "run", "--protocol", given, "--rule", rule, "--seed", "all"])
        remedy = f"To put it there: {command}" if name in registry.rule_names() else ""
        raise unknown_name(f"rule on the board of '{protocol.name}' named", name, planned, remedy)
    folder = seen_from(results, Path())
    board = collect(sources, folder)
    measured = [
        result
        for own in (board.tables, board.alignments)
        for part in own
        if part.protocol is protocol
        for row in part.rows
        if row.rule == name
        for result in row.results
    ]
    at = _point(protocol, name, axes, measured)
    own_axes = protocol.point(name, at)
    table = next((table for table in board.tables if table.protocol is protocol and table.axes == at), None)
    here = {result.seed: result for result in measured if result.axes == own_axes}
    cells = result_path(Path("results"), protocol.name, name, own_axes, 0).parent
    return Subject(
        protocol=protocol,
        axes=own_axes,
        rule=name,
        results=tuple(here[seed] for seed in sorted(here)),
        ignored=tuple(item for item in board.ignored if Path(item.path).parent == cells),
        table=table,
        row=table.row(name) if table is not None else None,
        known=sources.rules.get(name),
        given=sources.given.get(protocol.name, protocol.name),
        folder=folder,
    )


def _point(protocol: Protocol, rule: str, axes: Sequence[str], measured: Sequence[Result]) -> Axes:
    """The axis values that are meant: all named, or the only ones at which the rule has results, or stands."""
    fixed = parse_axes(list(axes), protocol)
    points = [at for at in axis_points(protocol) if fixed.items() <= at.items()]
    own = [at for at in points if protocol.takes(rule, at)] or points
    found = {canonical_json(result.axes) for result in measured}
    with_results = [at for at in own if canonical_json(at) in found]
    for left in (points, own, with_results):
        if len(left) == 1:
            return left[0]
    listed = [
        " ".join(f"--axis {shlex.quote(f'{name}={value}')}" for name, value in at.items()) for at in with_results or own
    ]
    raise ProtocolError(
        f"'{rule}' stands at {len(listed)} combinations of axis values under '{protocol.name}'. Name one: "
        f"{'; '.join(listed)}."
    )
