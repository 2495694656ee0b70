"""Two rules, or two sets of results, beside each other: differences paired by seed, and what else is not the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from hebbbench import registry
from hebbbench.board import alignment, text
from hebbbench.board.facts import differing, facts
from hebbbench.board.output import read
from hebbbench.board.pairing import Pairing, Side, find_side, pair
from hebbbench.board.rows import metric_by_seed
from hebbbench.board.statistics import Difference, Summary, summarise
from hebbbench.board.text import NOTHING
from hebbbench.errors import HebbBenchError, ResultError
from hebbbench.plan import Sources
from hebbbench.protocol import HEADLINES
from hebbbench.record.schema import Result
from hebbbench.record.store import check_exists
from hebbbench.report import point, table


def compare_page(
    first: str,
    second: str,
    results: Path,
    protocols: Sequence[str] = (),
    warn: Callable[[str], None] = lambda line: None,
) -> str:
    """Both beside each other, as text.

    Args:
        first, second: the name or file of a rule, of which the results that count are taken; or a result file or a
            folder of results, of which all are.
        results: the folder where the results of rules lie.
        protocols: these alone, by name or path.
        warn: is told of each damaged file beside the results of rules.

    Raises:
        HebbBenchError: one is neither, has no results, or the two have nothing in common.
    """
    if first == second:
        raise HebbBenchError(f"'{first}' is compared with itself. Name two rules, result files or folders.")

    @cache
    def sources() -> Sources:
        check_exists(results)
        found = read(results, protocols)
        for problem in found.damaged:
            warn(f"warning: {problem}")
        return found

    ours, theirs = (find_side(given, letter, results, sources) for given, letter in ((first, "A"), (second, "B")))
    known = {name: registry.protocol(name) for name in registry.protocol_names()}
    chosen = [registry.protocol(name) for name in protocols]
    known |= {protocol.name: protocol for protocol in chosen}
    wanted = {protocol.name for protocol in chosen} or {result.protocol.name for result in ours.results}
    pairings = pair(ours, theirs, known, wanted)
    if not pairings:
        raise ResultError(
            f"{first} and {second} have no protocol and axis values in common"
            f"{f' under {text.few(sorted(wanted))}' if chosen else ''}. {first}: {text.few(ours.protocols)}. "
            f"{second}: {text.few(theirs.protocols)}."
        )
    notes = [f"left out: {line}" for side in (ours, theirs) for line in side.left_out]
    return "\n".join(
        [*_head(ours, theirs), "", _numbers(pairings, ours, theirs), "", *_unlike(pairings, ours, theirs), *notes]
    )


def _head(ours: Side, theirs: Side) -> list[str]:
    width = max(len(ours.label), len(theirs.label))
    return [f"{side.label.ljust(width)}  {side.about}" for side in (ours, theirs)]


def _numbers(pairings: Sequence[Pairing], ours: Side, theirs: Side) -> str:
    """The table of differences, and how to read it."""
    rules = {(p.ours[0].rule.name, p.theirs[0].rule.name) for p in pairings}
    rows = []
    for pairing in pairings:
        difference = pairing.difference
        cells = {
            "protocol": pairing.protocol,
            "at": point(pairing.axes),
            "rule": pairing.ours[0].rule.name if len(rules) > 1 else "",
            ours.label: _spread(
                summarise(list(metric_by_seed(pairing.ours, pairing.headline).values())), pairing.headline
            ),
            theirs.label: _spread(
                summarise(list(metric_by_seed(pairing.theirs, pairing.headline).values())), pairing.headline
            ),
            f"{ours.label} − {theirs.label} [95 %]": _difference(difference, pairing.headline),
            "p": NOTHING if difference is None or difference.p is None else text.p_value(difference.p),
            "pairs": str(difference.n if difference is not None else 0),
            "notes": "; ".join(
                f"{side.label}: {lost}"
                for side, results in ((ours, pairing.ours), (theirs, pairing.theirs))
                if (lost := _lost(results))
            ),
        }
        rows.append(cells)
    kept = [name for name in rows[0] if any(row[name] for row in rows)]
    unit = "cosines" if all(p.headline not in HEADLINES for p in pairings) else "accuracies in %, differences in points"
    return "\n".join(
        [
            table([[row[name] for name in kept] for row in rows], kept),
            "",
            f"Mean ± standard deviation (seeds), {unit}.",
            "Two-sided t-test on differences paired by seed; each p is of its line alone.",
        ]
    )


def _spread(summary: Summary | None, metric: str) -> str:
    if summary is None or metric in HEADLINES:
        return text.spread(summary)
    return alignment.spread(summary)


def _difference(difference: Difference | None, metric: str) -> str:
    if difference is None or metric in HEADLINES:
        return text.gap(difference)
    if difference.low is None or difference.high is None:
        return f"{difference.mean:+.3f}"
    return f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def _lost(results: Sequence[Result]) -> str:
    """How many seeds have no value, by what became of them."""
    causes = Counter(result.status for result in results if result.status != "ok")
    return ", ".join(f"{count} {cause}" for cause, count in sorted(causes.items()))


def _unlike(pairings: Sequence[Pairing], ours: Side, theirs: Side) -> list[str]:
    """What differs between the two sides, each difference once, with the places where it is found."""
    found: dict[tuple[str, str, str], list[Pairing]] = {}
    for pairing in pairings:
        mine, yours = facts(pairing.ours), facts(pairing.theirs)
        if mine.pop("rule") != yours.pop("rule"):
            del mine["rule code"], yours["rule code"]
        for name, both in differing(mine, yours).items():
            found.setdefault((name, *both), []).append(pairing)
    lines = _same_weights(pairings)
    if not found:
        return [*lines, "Nothing else differs: protocol, rule, recipe, data, commit and environment are the same."]
    order = list(dict.fromkeys(name for name, _, _ in found))
    rows = [[name, a, b, _where(places, pairings)] for (name, a, b), places in found.items()]
    rows.sort(key=lambda row: order.index(row[0]))
    width = 3 if all(len(places) == len(pairings) for places in found.values()) else 4
    header = ["what differs", ours.label, theirs.label, "where"]
    return [*lines, table([row[:width] for row in rows], header[:width])]


def _where(places: Sequence[Pairing], pairings: Sequence[Pairing]) -> str:
    """The places of a difference: a protocol's name alone if it is found at all of its places."""
    if len(places) == len(pairings):
        return "everywhere"
    names: dict[str, None] = {}
    for pairing in places:
        own = [other for other in pairings if other.protocol == pairing.protocol]
        whole = all(any(place is other for place in places) for other in own)
        names[pairing.protocol if whole else pairing.place] = None
    return text.few(list(names))


def _same_weights(pairings: Sequence[Pairing]) -> list[str]:
    """Of cells that both sides have measured: whether they ended with the same bits."""
    same = [
        a.weights == b.weights
        for pairing in pairings
        for a in pairing.ours
        for b in pairing.theirs
        if a.cell == b.cell and a.weights is not None and b.weights is not None
    ]
    if not same:
        return []
    cells = text.count(len(same), "cell")
    return [f"Of {cells} measured on both sides {sum(same)} ended with the same weights, bit by bit.", ""]
