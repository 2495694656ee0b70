"""Which results a picture shows, and the protocols they are of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from hebbbench import registry
from hebbbench.errors import ResultError, suggestion
from hebbbench.plan import Sources, gather, narrowed
from hebbbench.protocol import Protocol
from hebbbench.record import store
from hebbbench.record.schema import Result
from hebbbench.sections import stands_for
from hebbbench.validation import canonical_json

YAML = (".yaml", ".yml")
WHAT_IS_DRAWN = (
    "Name a protocol, its .yaml file, a result (PROTOCOL/RULE/seed-N.json) or a folder of results; saved weights "
    "(.safetensors) are drawn by --kind features and updates."
)


@dataclass(frozen=True)
class Found:
    """Results, in the order in which their protocols were named.

    protocols: those of them that are known, by name.
    rules: the only ones asked for; all if empty.
    """

    results: Sequence[Result]
    protocols: Mapping[str, Protocol] = field(default_factory=dict)
    rules: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        """Of the protocols, in order."""
        return list(dict.fromkeys(result.protocol.name for result in self.results))

    @property
    def losses(self) -> frozenset[str]:
        """Of the protocols; empty if one is not known."""
        known = all(name in self.protocols for name in self.names)
        return frozenset(self.protocols[name].loss for name in self.names) if known else frozenset()

    def of(self, protocol: str) -> list[Result]:
        """The results of a protocol."""
        return [result for result in self.results if result.protocol.name == protocol]

    def at(self, fixed: Sequence[str]) -> Found:
        """Those whose axis values are the given ones, name=value.

        Raises:
            ResultError: a protocol has no such axis, or no result that value.
        """
        kept = list(self.results)
        for text in fixed:
            name, given, value = text.partition("=")
            if not given:
                raise ResultError(f"--axis {text} has no value. Write it as name=value.")
            for protocol in self.names:
                known = sorted({axis for result in self.of(protocol) for axis in result.axes})
                if name not in known:
                    raise ResultError(f"'{protocol}' has no axis '{name}'. {suggestion(name, known)}")
            fit = [result for result in kept if name in result.axes and stands_for(value, result.axes[name])]
            if not fit:
                values = dict.fromkeys(str(result.axes[name]) for result in kept if name in result.axes)
                raise ResultError(f"no result has {', '.join(fixed)}. The values of {name}: {', '.join(values)}.")
            kept = fit
        return replace(self, results=kept)

    def by(self, rules: Sequence[str]) -> Found:
        """Those of these rules; of all, if none is named.

        Raises:
            ResultError: a rule has no result.
        """
        known = {result.rule.name for result in self.results}
        for rule in rules:
            if rule not in known:
                raise ResultError(f"no result is of the rule '{rule}'. {suggestion(rule, known)}")
        kept = [result for result in self.results if not rules or result.rule.name in rules]
        return replace(self, results=kept, rules=rules)


def collect(targets: Sequence[str], root: Path) -> Found:
    """The results of protocols (by name or .yaml file, those that count on the board), result files, and folders of
    them; each cell once.

    Raises:
        ResultError: a target is none of these, or holds no result, or seeds are no repetitions of one cell.
    """
    everything = cache(lambda: gather(root))
    results: list[Result] = []
    protocols: dict[str, Protocol] = {}
    for target in targets:
        path = Path(target)
        if path.suffix in YAML:
            protocol = registry.protocol(target)
            protocols[protocol.name] = protocol
            results += _of_protocol(target, protocol.name, root, everything)
        elif path.is_file():
            results.append(_load(path, root))
        elif path.is_dir():
            results += [item.result for item in store.scan(path) if item.result is not None] or [
                _load(file, root) for file in sorted(path.rglob("seed-*.json"))
            ]
        elif target in registry.protocol_names():
            results += _of_protocol(target, target, root, everything)
        else:
            names = suggestion(target, registry.protocol_names())
            raise ResultError(f"'{target}' is neither a file, a folder nor a protocol. {names}")
    if not results:
        raise ResultError(f"{', '.join(targets)}: there is no result to draw. Run some cells first.")
    found = Found(_each_once(results))
    known = registry.protocol_names()
    return replace(found, protocols={n: registry.protocol(n) for n in found.names if n in known} | protocols)


def _load(path: Path, root: Path) -> Result:
    """The result in a file. `store` says to delete a broken one, and that may be said in a result's own place only."""
    try:
        return store.load(path)
    except ResultError as error:
        inside = root.resolve() in path.resolve().parents
        if inside and re.fullmatch(r"seed-\d+\.json", path.name):
            raise
        raise ResultError(f"{path} is no result file. {WHAT_IS_DRAWN}") from error


def _of_protocol(given: str, name: str, root: Path, everything: Callable[[], Sources]) -> list[Result]:
    from hebbbench.board import sift

    store.check_exists(root)
    sifted = sift(narrowed(everything(), [given]))
    if not sifted.current:
        ignored = f" ({len(sifted.ignored)} do not: hebbbench validate says why)" if sifted.ignored else ""
        raise ResultError(
            f"{root}/ has no result of protocol '{name}' that counts{ignored}. Run some, or name another --results."
        )
    return list(sifted.current)


def _each_once(results: Iterable[Result]) -> list[Result]:
    """One result a cell, and seeds that are nothing but repetitions of one.

    Raises:
        ResultError: two results have one place and are of different cells, or seeds differ in more than the seed.
    """
    places: dict[str, Result] = {}
    rows: dict[str, Result] = {}
    for result in results:
        row = canonical_json([result.protocol.name, result.rule.name, result.axes])
        place = f"{row} {result.seed}"
        first = rows.setdefault(row, result)
        if (
            places.setdefault(place, result).cell != result.cell
            or _work(first) != _work(result)
            or _other_network(first, result)
        ):
            raise ResultError(
                f"the results of '{result.rule.name}' under '{result.protocol.name}' (seeds {first.seed} and "
                f"{result.seed}) differ in more than their seed: protocol, code or recipe. Name the protocol, which "
                "takes those that count on the board, or draw one folder at a time."
            )
    return list(places.values())


def _work(result: Result) -> tuple[object, ...]:
    """What all seeds of a row have in common."""
    return result.protocol.hash, result.rule.source_hash, result.numerics_version, result.recipe.identity()


def _other_network(one: Result, other: Result) -> bool:
    """Whether both say which code their networks had, and it is not the same."""
    return None not in (one.architecture, other.architecture) and one.architecture != other.architecture
