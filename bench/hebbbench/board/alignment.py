"""Protocols that ask how Hebbian updates are: cosines in place of accuracies, one matrix, nothing ranked.

Rows of the matrix are rules with the values of all axes but the last, columns the last axis.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hebbbench.board import text
from hebbbench.board.section import measured_by, missing_runs
from hebbbench.board.statistics import BySeed, Summary, summarise
from hebbbench.board.text import NOTHING, plain, sentence
from hebbbench.plan import Axes, CellStatus, axis_points, value_of
from hebbbench.protocol import SGD, Protocol
from hebbbench.record.schema import Result
from hebbbench.sections import Published
from hebbbench.validation import canonical_json

HEBBIAN = "the Hebbian update of the same minibatch", "as plain Hebb"
DESCENT = "the step of gradient descent on the same minibatch", "as gradient descent"
HOW_TO_READ = (
    "−1: against it, 0: no relation. Mean ± standard deviation over seeds (number of seeds). *collapsed*: the layer's "
    "weights have under a tenth of the norm they started from, and a cosine would be one of noise."
)


@dataclass(frozen=True)
class AlignmentRow:
    """One rule at one combination of axis values: a cell of the matrix.

    Attributes:
        results: those that count, by seed.
        values: seed → cosine, of the seeds that have one.
        fates: what became of the seeds that have none, and of how many.
    """

    axes: Axes
    rule: str
    results: tuple[Result, ...]
    values: BySeed
    fates: Mapping[str, int]

    @property
    def cosine(self) -> Summary | None:
        """Mean and spread over seeds."""
        return summarise(list(self.values.values()))


@dataclass(frozen=True)
class Alignments:
    """What was measured under one protocol of alignment: rows by rule, then in the protocol's order of axis values."""

    protocol: Protocol
    rows: tuple[AlignmentRow, ...]

    @property
    def results(self) -> list[Result]:
        """All results that count."""
        return [result for row in self.rows for result in row.results]


def alignments(protocol: Protocol, rules: Sequence[str], results: Sequence[Result]) -> Alignments:
    """The rows of those rules that have results.

    Args:
        results: those of the protocol that count.
    """
    found: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: result.seed):
        found.setdefault(_key(result.rule.name, result.axes), []).append(result)
    rows = [
        _row(protocol.headline, rule, axes, found[key])
        for rule in rules
        for axes in axis_points(protocol)
        if (key := _key(rule, axes)) in found
    ]
    return Alignments(protocol, tuple(rows))


def _row(metric: str, rule: str, axes: Axes, results: Sequence[Result]) -> AlignmentRow:
    values = {result.seed: value_of(result, metric) for result in results}
    fates = Counter(_fate(result, metric) for result in results if values[result.seed] is None)
    return AlignmentRow(
        axes,
        rule,
        tuple(results),
        {seed: value for seed, value in values.items() if value is not None},
        dict(sorted(fates.items())),
    )


def _fate(result: Result, name: str) -> str:
    """Why a result has no cosine, in a word or two."""
    metric = result.metrics.get(name)
    if result.status != "ok":
        return result.status
    if metric is None or metric.reason is None:
        return "not measured"
    return metric.reason.partition(":")[0]


def alignment_lines(measured: Alignments, cells: Sequence[CellStatus], folder: str) -> list[str]:
    """The lines of the protocol's section.

    Args:
        cells: its planned cells; folder: of results, as the page names it.
    """
    protocol = measured.protocol
    lines = [
        f"## {protocol.name}",
        "",
        f"**{plain(protocol.title)}.** {sentence(protocol.description)}",
        "",
        f"Protocol version {protocol.version}, hash `{protocol.hash[:12]}`. {asked(protocol)} Lines "
        "in italics: published numbers.",
        "",
        *_lines_of_matrix(measured),
        "",
    ]
    sources_of = sorted({f"{entry.source}{'; ' + entry.note if entry.note else ''}" for entry in protocol.published})
    for notes in (
        [plain(line) for line in measured_by(measured.results)],
        [f"Published: {sentence(source)}" for source in sources_of],
    ):
        lines += [*notes, ""] if notes else []
    missing = missing_runs(cells, folder)
    return [*lines, *missing, ""] if missing else lines


def asked(protocol: Protocol) -> str:
    """What the numbers are, and how they are to be read."""
    layer = _layer(protocol.headline)
    sgd = protocol.headline.endswith(SGD)
    other, mover = DESCENT if sgd else HEBBIAN
    window = protocol.alignment.window if protocol.alignment is not None else 0
    seeds = ", ".join(text.spans(sorted(protocol.seeds)))
    return (
        f"{'SGD' if sgd else 'Hebbian'} alignment of layer `{layer}`: the cosine of the rule's update, weight decay "
        f"left out, with {other}, mean over the last {window} steps. Seeds {seeds}. "
        f"+1: the layer moves {mover} would move it, {HOW_TO_READ}"
    )


class Line(NamedTuple):
    """A line of the matrix: values of the outer axes, then the cosines along the last, or what was printed there."""

    rule: str
    published: bool
    outer: list[str]
    cells: list[str]


def matrix(measured: Alignments) -> tuple[list[str], list[Line]]:
    """Header and lines, as plain text."""
    protocol = measured.protocol
    *outer, last = list(protocol.axes) or [""]
    columns = list(protocol.axes[last].values) if last else [None]
    header = ["rule", *outer, *(f"{last} {value}" if last else "alignment" for value in columns)]
    at = {_key(row.rule, row.axes): row for row in measured.rows}
    published = {_key(entry.rule, entry.axes): entry for entry in protocol.published}
    lines = []
    for rule in dict.fromkeys(row.rule for row in measured.rows):
        for point in _points(protocol, outer):
            keys = [_key(rule, {**point, last: value} if last else point) for value in columns]
            if not any(key in at for key in keys):
                continue
            named = [str(point[name]) for name in outer]
            lines.append(Line(rule, False, named, [_cell(at.get(key)) for key in keys]))
            printed = [published.get(key) for key in keys]
            for metric in dict.fromkeys(entry.beside for entry in printed if entry is not None and entry.beside):
                others = [_row(metric, rule, at[key].axes, at[key].results) if key in at else None for key in keys]
                lines.append(Line(f"{rule}, {_layer(metric)}", False, named, [_cell(row) for row in others]))
            if any(printed):
                lines.append(Line(rule, True, named, [_printed(entry) for entry in printed]))
    return header, lines


def _layer(metric: str) -> str:
    return metric.partition(".")[2].removesuffix(SGD)


def _lines_of_matrix(measured: Alignments) -> list[str]:
    """The matrix in Markdown, printed numbers in italics."""
    if not measured.rows:
        return ["No results yet."]
    header, lines = matrix(measured)
    shown = []
    for line in lines:
        if line.published:
            printed = [cell if cell == NOTHING else f"*{cell}*" for cell in line.cells]
            shown.append(["*published*", *line.outer, *printed])
        else:
            shown.append([plain(line.rule), *line.outer, *line.cells])
    return text.pipe_table(header, shown, frozenset())


def _points(protocol: Protocol, names: Sequence[str]) -> list[Axes]:
    points: list[Axes] = [{}]
    for name in names:
        points = [{**point, name: value} for point in points for value in protocol.axes[name].values]
    return points


def _key(rule: str, axes: Mapping[str, object]) -> str:
    return canonical_json([rule, dict(axes)])


def _cell(row: AlignmentRow | None) -> str:
    """Mean ± s.d. (n), and what became of the seeds that have no cosine."""
    if row is None:
        return NOTHING
    parts = [] if row.cosine is None else [spread(row.cosine)]
    return ", ".join([*parts, *(f"{word} ({count})" for word, count in row.fates.items())]) or NOTHING


def spread(cosine: Summary) -> str:
    """mean ± standard deviation (n), with three decimals."""
    sd = f" ± {cosine.sd:.3f}" if cosine.sd is not None else ""
    return f"{signed(cosine.mean)}{sd} ({cosine.n})"


def _printed(entry: Published | None) -> str:
    if entry is None:
        return NOTHING
    sd = f" ± {entry.sd:.2f}" if entry.sd is not None else ""
    return f"{signed(entry.value, 2)}{sd}"


def signed(value: float, digits: int = 3) -> str:
    """With a true minus sign, and no negative zero."""
    shown = f"{value:.{digits}f}"
    return shown.lstrip("-") if float(shown) == 0 else shown.replace("-", "−")
