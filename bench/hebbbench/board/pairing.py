"""The two sides of a comparison: their results, and what both have at one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hebbbench import registry
from hebbbench.board import text
from hebbbench.board.current import sift
from hebbbench.board.rows import metric_by_seed
from hebbbench.board.statistics import Difference, paired
from hebbbench.errors import HebbBenchError, ResultError, suggestion
from hebbbench.plan import Axes, Sources, axis_points
from hebbbench.protocol import HEADLINES, Protocol
from hebbbench.record.schema import Result
from hebbbench.record.store import entries, load
from hebbbench.report import point
from hebbbench.validation import canonical_json


@dataclass(frozen=True)
class Side:
    """One of the two: what heads its column, what it is, its results, and files of it that are no results."""

    label: str
    about: str
    results: tuple[Result, ...]
    left_out: tuple[str, ...] = ()

    @property
    def protocols(self) -> list[str]:
        """The names of the protocols of its results."""
        return sorted({result.protocol.name for result in self.results})


@dataclass(frozen=True)
class Pairing:
    """What both sides have at one place: a protocol at some axis values, of one rule each."""

    protocol: str
    axes: Axes
    headline: str
    ours: tuple[Result, ...]
    theirs: tuple[Result, ...]

    @property
    def difference(self) -> Difference | None:
        """Ours less theirs, paired by seed; None if no seed has a value on both sides."""
        return paired(metric_by_seed(self.ours, self.headline), metric_by_seed(self.theirs, self.headline))

    @property
    def place(self) -> str:
        """The protocol and its axis values."""
        return f"{self.protocol} {point(self.axes)}".rstrip()


def find_side(given: str, letter: str, root: Path, sources: Callable[[], Sources]) -> Side:
    """What was named on the command line: a rule first, for a folder may have the name of one."""
    path = Path(given)
    if not given.endswith(".py") and path.exists() and given not in registry.rule_names():
        return _of_files(path, letter)
    name = registry.rule_path(given).stem if given.endswith(".py") else given
    current = sift(sources()).current
    own = tuple(result for result in current if result.rule.name == name)
    if own:
        return Side(name, f"results under {root}/ that count", own)
    measured = {result.rule.name for result in current}
    if name in registry.rule_names():
        raise ResultError(
            f"rule '{name}' has no results under {root}/ that count. Rules that have: "
            f"{text.few(sorted(measured), 8) or 'none'}."
        )
    raise HebbBenchError(
        f"'{given}' is neither a rule with results under {root}/, nor a result file or folder. "
        f"{suggestion(name, measured)}"
    )


def _of_files(path: Path, letter: str) -> Side:
    """All results in a file or under a folder, whether they count or not."""
    found, left_out = [], []
    for file in [path] if path.is_file() else entries(path):
        try:
            found.append(load(file))
        except ResultError as error:
            left_out.append(str(error))
    if not found:
        raise ResultError(f"there is no result under {path}. {' '.join(left_out[:1])}".rstrip())
    rules = text.few(sorted({result.rule.name for result in found}))
    return Side(letter, f"{path} ({rules}), whether it counts or not", tuple(found), tuple(left_out))


def pair(ours: Side, theirs: Side, known: dict[str, Protocol], wanted: set[str]) -> list[Pairing]:
    """What both sides have, by protocol, axis values and rule.

    A side with one rule may be paired with another rule; of sides with several, each rule is paired with itself. A rule
    for which an axis does not vary stands at all its values, as on the board.
    """
    mine, yours = _index(ours, wanted), _index(theirs, wanted)
    rules = [sorted({rule for _, rule, _ in index}) for index in (mine, yours)]
    couples = [(a, b) for a in rules[0] for b in rules[1] if a == b or len(rules[0]) == len(rules[1]) == 1]
    found: dict[tuple[str, str, str, str, str], Pairing] = {}
    for name in sorted(wanted):
        protocol = known.get(name)
        for axes in _points(name, protocol, (mine, yours)):
            for a, b in couples:
                keys = (name, a, _at(protocol, a, axes)), (name, b, _at(protocol, b, axes))
                own, other = mine.get(keys[0]), yours.get(keys[1])
                if own and other and (place := (*keys[0], *keys[1][1:])) not in found:
                    metric = _headline(protocol, own, other)
                    found[place] = Pairing(name, axes, metric, tuple(own), tuple(other))
    return list(found.values())


Index = dict[tuple[str, str, str], list[Result]]


def _index(side: Side, wanted: set[str]) -> Index:
    """(protocol, rule, axis values) → results, one a seed."""
    found: Index = {}
    for result in sorted(side.results, key=lambda result: result.seed):
        if result.protocol.name in wanted:
            own = found.setdefault((result.protocol.name, result.rule.name, canonical_json(result.axes)), [])
            if own and own[-1].seed == result.seed:
                cell = f"{result.protocol.name} {point(result.axes)}".rstrip()
                raise ResultError(
                    f"{side.about}: there are two results of seed {result.seed} of {result.rule.name} under {cell}. "
                    "Name the folder that holds one of them."
                )
            own.append(result)
    return found


def _points(name: str, protocol: Protocol | None, indices: Sequence[Index]) -> list[Axes]:
    """The protocol's axis values in its own order, and others that results have."""
    listed = axis_points(protocol) if protocol is not None else []
    measured = [own[0].axes for index in indices for (of, _, _), own in index.items() if of == name]
    return list({canonical_json(axes): axes for axes in [*listed, *measured]}.values())


def _at(protocol: Protocol | None, rule: str, axes: Axes) -> str:
    """Where the rule is measured for these axis values."""
    fits = protocol is not None and axes.keys() == protocol.axes.keys()
    return canonical_json(protocol.point(rule, axes) if protocol is not None and fits else axes)


def _headline(protocol: Protocol | None, own: Sequence[Result], other: Sequence[Result]) -> str:
    """The protocol's own; of a protocol that is not here, an accuracy that both have measured."""
    if protocol is not None:
        return protocol.headline
    measured = {name for result in own for name in result.metrics} & {
        name for result in other for name in result.metrics
    }
    return next((name for name in HEADLINES if name in measured), HEADLINES[0])
