"""The section of a protocol that asks how Hebbian updates are: one matrix, nothing ranked.

Rows are rules with the values of all axes but the last, columns the last axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

from hebbbench.board import text
from hebbbench.board.section import measured_by, missing_runs
from hebbbench.board.text import NOTHING, plain, sentence
from hebbbench.plan import Axes, CellStatus, Sources, headline, planned_rules
from hebbbench.protocol import SGD, Protocol
from hebbbench.record.schema import Result
from hebbbench.sections import Published
from hebbbench.validation import canonical_json

HEBBIAN = "the Hebbian update of the same minibatch", "as plain Hebb"
DESCENT = "the step of gradient descent on the same minibatch", "as gradient descent"
HOW_TO_READ = (
    "−1: against it, 0: no relation. Mean ± standard deviation over seeds (number of seeds). *collapsed*: the layer's "
    "weights have under a tenth of the norm they started from, and a cosine would be one of noise. Lines in italics: "
    "published numbers."
)


def alignment_section(
    protocol: Protocol, sources: Sources, results: Sequence[Result], cells: Sequence[CellStatus]
) -> list[str]:
    """The lines of the protocol's section.

    Args:
        results: those of the protocol that count; cells: its planned cells.
    """
    layer = protocol.headline.partition(".")[2].removesuffix(SGD)
    sgd = protocol.headline.endswith(SGD)
    other, mover = DESCENT if sgd else HEBBIAN
    seeds = text.spans(sorted(protocol.seeds))
    alignment = protocol.alignment
    window = alignment.window if alignment is not None else 0
    lines = [
        f"## {protocol.name}",
        "",
        f"**{plain(protocol.title)}.** {sentence(protocol.description)}",
        "",
        f"Protocol version {protocol.version}, hash `{protocol.hash[:12]}`. {'SGD' if sgd else 'Hebbian'} alignment of "
        f"layer `{layer}`: the cosine of the rule's update, weight decay left out, with {other}, mean over the last "
        f"{window} steps. Seeds {', '.join(seeds)}. +1: the layer moves {mover} would move it, {HOW_TO_READ}",
        "",
    ]
    lines += [*_matrix(protocol, planned_rules(sources, protocol), results), ""]
    sources_of = sorted({f"{entry.source}{'; ' + entry.note if entry.note else ''}" for entry in protocol.published})
    for notes in (measured_by(results), [f"Published: {sentence(source)}" for source in sources_of]):
        lines += [*notes, ""] if notes else []
    missing = missing_runs(cells)
    return [*lines, *missing, ""] if missing else lines


def _matrix(protocol: Protocol, rules: Sequence[str], results: Sequence[Result]) -> list[str]:
    if not results:
        return ["No results yet."]
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(_key(result.rule.name, result.axes), []).append(result)
    published = {_key(entry.rule, entry.axes): entry for entry in protocol.published}
    *outer, last = list(protocol.axes) or [""]
    columns = list(protocol.axes[last].values) if last else [None]
    points = _points(protocol, outer)
    header = ["rule", *outer, *(f"{last} {value}" if last else "alignment" for value in columns)]
    rows = []
    for rule in rules:
        for point in points:
            at = [{**point, last: value} if last else dict(point) for value in columns]
            if not any(_key(rule, axes) in found for axes in at):
                continue
            named = [str(point[name]) for name in outer]
            rows.append([plain(rule), *named, *(_cell(found.get(_key(rule, axes), []), protocol) for axes in at)])
            printed = [published.get(_key(rule, axes)) for axes in at]
            if any(printed):
                rows.append(["*published*", *named, *(_printed(entry) for entry in printed)])
    return text.pipe_table(header, rows, frozenset())


def _points(protocol: Protocol, names: Sequence[str]) -> list[Axes]:
    points: list[Axes] = [{}]
    for name in names:
        points = [{**point, name: value} for point in points for value in protocol.axes[name].values]
    return points


def _key(rule: str, axes: Mapping[str, object]) -> str:
    return canonical_json([rule, dict(axes)])


def _cell(results: Sequence[Result], protocol: Protocol) -> str:
    """Mean ± s.d. (n), and what became of the seeds that have no cosine."""
    values = [value for result in results if (value := headline(result, protocol)) is not None]
    parts = []
    if values:
        spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
        parts.append(f"{_signed(mean(values))}{spread} ({len(values)})")
    fates: dict[str, int] = {}
    for result in results:
        if headline(result, protocol) is None:
            metric = result.metrics.get(protocol.headline)
            reason = metric.reason if metric is not None and metric.reason is not None else result.status
            word = reason.partition(":")[0] if result.status == "ok" else result.status
            fates[word] = fates.get(word, 0) + 1
    parts += [f"{word} ({count})" for word, count in sorted(fates.items())]
    return ", ".join(parts) or NOTHING


def _printed(entry: Published | None) -> str:
    if entry is None:
        return NOTHING
    spread = f" ± {entry.sd:.2f}" if entry.sd is not None else ""
    return f"*{_signed(entry.value, 2)}{spread}*"


def _signed(value: float, digits: int = 3) -> str:
    """With a true minus sign, and no negative zero."""
    shown = f"{value:.{digits}f}"
    return shown.lstrip("-") if float(shown) == 0 else shown.replace("-", "−")
