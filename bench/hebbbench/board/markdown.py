"""LEADERBOARD.md as a pure function of the results: the same files in any order give the same bytes."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from hebbbench.board import text
from hebbbench.board.rows import BACKPROP, RANDOM, Row, Table
from hebbbench.board.section import section
from hebbbench.board.text import NOTHING, percent, plain
from hebbbench.plan import CellStatus, Ignored, tally
from hebbbench.record.card import BADGES, LOCALITY

TITLE = "# HebbBench leaderboard"
HOW_TO_READ = """\
Within a table every learning rule does the same work: same data, same network, same training budget, same
scoring. Only the rule and its settings (its recipe) differ. Accuracy is on the test split, in percent:
mean ± standard deviation (number of seeds). `bp` is backpropagation on the same network; `random` is that
network left untrained and scored the same way, so a rule that does not beat it has learned nothing that
helps. Rules of one tier cannot be told from the best of it with these seeds. This page is written by
`hebbbench leaderboard` from the files under [results/](results/) and from nothing else; the name of a rule
leads to the files behind its row."""
COLUMNS = """\
- **tier**: tier 1 is the best row and every row not significantly different from it; the best of the rest
  leads tier 2, and so on. Two-sided t-test on differences paired by seed, Holm-corrected over the
  comparisons with a tier's best row, α = 0.05. 1–4: the rule's spread is too wide to place it. It cannot be
  told from the best of tier 1, and its mean is below that of rules of tier 4.
- **accuracy**: of a linear read-out trained on the frozen features, the same for every rule.
  **end-to-end**: of the network's own output, for rules that train one. **top-5**: where there are a
  hundred classes or more, how often the right one is among the five likeliest.
- **gap to bp**: mean difference to backpropagation at the same seeds, in percentage points [95 %
  confidence interval of that mean, by Student's t, not corrected for the number of rows].
- **published**: what the rule's authors or others printed, listed with its source below the table; never
  ranked.
- **passes**: arithmetic of one training step, counted as it ran, in forward passes of the network.
- **train s**, **read-out s**, **memory MiB**: medians over the seeds that finished: time of training the
  network, time of training the read-out, peak memory: on a CPU that of the whole process, Python and data
  included, on a GPU what was allocated there."""
SIGNALS = """\
- **signals**: of a rule without a measured plausibility: what the update of a weight asked to see. *local*:
  only the layer's input, output and weights, and the rule's own state; *gradient*, *output error*, *labels*
  and *network input* come from outside the layer; *nothing*: not even activity.
- **recipe**: where the rule's settings come from, as its recipe file says today: *paper*, *searched* on
  validation data with so many runs, or *default*.
- **notes**: a row stands below the ranked ones, without a tier, if a seed failed or was not run, or the
  budget was over-spent. *below random*: the 95 % interval of the paired difference to `random` lies under
  zero; *no better than random*: it holds zero, or no seed gains anything.
- **verification**, below the tables: a result is *self-reported* by whoever measured it, until *ci* has
  measured it anew, or somebody else has *replicated* it.
- **–**: not applicable or not measured."""


def page(
    tables: Sequence[Table],
    cells: Sequence[CellStatus],
    ignored: Sequence[Ignored],
    sections: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """The whole page.

    Args:
        sections: protocol name → lines, of protocols that have no tables.
        tables: by protocol name, with a protocol's own next to each other.
        cells: the planned cells of all protocols.
        ignored: the files that do not count, by path.
    """
    lines = [
        TITLE,
        "",
        HOW_TO_READ,
        "",
        *_summary(tables, cells),
        "",
        "## The columns",
        "",
        COLUMNS,
        _plausibility(),
        SIGNALS,
        "",
    ]
    by_protocol: defaultdict[str, list[Table]] = defaultdict(list)
    for table in tables:
        by_protocol[table.protocol.name].append(table)
    for name, own in by_protocol.items():
        lines += section(own[0].protocol, own, [cell for cell in cells if cell.protocol == name])
    for _, own_lines in sorted((sections or {}).items()):
        lines += own_lines
    lines += _ignored(ignored)
    return "\n".join(lines).rstrip("\n") + "\n"


def _plausibility() -> str:
    """The legend of the badges, from the words of the card itself."""
    places = "; ".join(f"*{place}*: {meaning}" for place, meaning in LOCALITY.items())
    words = "; ".join(f"**{badge.letter}** {badge.word}: it {badge.meaning}" for badge in BADGES)
    text = (
        "- **plausibility**: measured on a small network by `hebbbench check`, whatever the rule's file says. First "
        f"what the update of a weight depends on. {places}. Then what else was seen of that update. {words}."
    )
    return textwrap.fill(text, 104, subsequent_indent="  ", break_on_hyphens=False)


def best(table: Table) -> Row | None:
    """The ranked row of highest accuracy that is no control."""
    return next((row for row in table.rows if row.ranked and row.rule not in table.protocol.controls), None)


def _summary(tables: Sequence[Table], cells: Sequence[CellStatus]) -> list[str]:
    if not tables:
        return ["There are no protocols yet."]
    accuracies = ["its accuracy %", "bp %", "random %"]
    header = ["protocol", "epochs, at most", "best rule beside the controls", *accuracies, "runs done"]
    rows = []
    for table, members in _grouped(tables):
        name = table.protocol.name
        axes = [member.axes for member in members]
        where = f": {text.axes_text(table.axes)}" if table.axes and len(members) == 1 else ""
        where = f": {len(members)} tables" if len(members) > 1 else where
        top = best(table)
        counted = tally(cell for cell in cells if cell.protocol == name and cell.axes in axes)
        rows.append(
            [
                text.link(name, f"#{name}") + where,
                str(table.protocol.budget.epochs),
                plain(top.rule) if top else NOTHING,
                _mean(top),
                _mean(table.row(BACKPROP)),
                _mean(table.row(RANDOM)),
                f"{counted.done}/{counted.planned}" + (f", {counted.failed} failed" if counted.failed else ""),
            ]
        )
    return text.pipe_table(header, rows, frozenset({"epochs, at most", *accuracies}))


def _grouped(tables: Sequence[Table]) -> list[tuple[Table, list[Table]]]:
    """Each table that has results, alone; a protocol's tables without any share one line."""
    lines: list[tuple[Table, list[Table]]] = []
    empty: dict[str, list[Table]] = {}
    for table in tables:
        if table.rows:
            lines.append((table, [table]))
        elif table.protocol.name in empty:
            empty[table.protocol.name].append(table)
        else:
            empty[table.protocol.name] = [table]
            lines.append((table, empty[table.protocol.name]))
    return lines


def _mean(row: Row | None) -> str:
    """A row's mean accuracy, with the number of seeds if they are not all there."""
    if row is None or row.accuracy is None:
        return NOTHING
    partial = "" if row.ranked else f" ({row.accuracy.n} of the seeds)"
    return percent(row.accuracy.mean) + partial


def _ignored(ignored: Sequence[Ignored]) -> list[str]:
    """The files that do not count, those of one folder with one reason on one line."""
    if not ignored:
        return []
    groups: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for item in ignored:
        path = PurePosixPath(item.path)
        groups[path.parent.as_posix(), item.reason].append(path.name)
    lines = [
        f"- `{folder}/` {', '.join(f'`{name}`' for name in names)}: {text.sentence(reason)}"
        for (folder, reason), names in groups.items()
    ]
    return [
        "## Files that do not count",
        "",
        f"{text.count(len(ignored), 'file')} under results/ left out of the tables above, with the reason.",
        "",
        *lines,
    ]
