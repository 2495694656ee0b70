"""LEADERBOARD.md as a pure function of the results: the same files in any order give the same bytes."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from pathlib import PurePosixPath

from hebbbench.board import text
from hebbbench.board.alignment import alignment_lines
from hebbbench.board.content import Board
from hebbbench.board.section import section
from hebbbench.board.summary import HEADER, RIGHT, summary
from hebbbench.board.text import plain
from hebbbench.record.card import BADGES, LOCALITY

TITLE = "# HebbBench leaderboard"
HOW_TO_READ = """\
Within a table every learning rule does the same work: same data, same network, same training budget, same
scoring. Only the rule and its settings (its recipe) differ. Accuracy is on the test split, in percent:
mean ± standard deviation (number of seeds). `bp` is backpropagation on the same network; `random` is that
network left untrained and scored the same way, so a rule that does not beat it has learned nothing that
helps. Rules of one tier cannot be told from the best of it with these seeds. Spreads, intervals and tiers are
over seeds, on one test split: what they tell apart on a small split, other samples may not. This page is
written by `hebbbench leaderboard` from the files under {folder} and from nothing else; the name of a rule
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
- **best test epoch (as published)**: of the network's own output, at whichever epoch of training did best on
  the test split, as papers print it. Chosen with the test split in hand, so never ranked, and no recipe is
  searched with it.
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


def page(board: Board) -> str:
    """The whole page."""
    lines = [
        TITLE,
        "",
        HOW_TO_READ.format(folder=text.link(f"{board.folder}/", f"{board.folder}/")),
        "",
        *_summary(board),
        "",
        "## The columns",
        "",
        COLUMNS,
        _plausibility(),
        SIGNALS,
        "",
    ]
    for own in board.by_protocol().values():
        protocol = own[0].protocol
        lines += section(protocol, own, board.cells_of(protocol), board.folder)
    for measured in board.alignments:
        lines += alignment_lines(measured, board.cells_of(measured.protocol), board.folder)
    lines += _ignored(board)
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


def _summary(board: Board) -> list[str]:
    if not board.tables:
        return ["There are no protocols yet."]
    rows = [
        [text.link(line.protocol, f"#{line.protocol}") + line.where, *map(plain, line.cells)] for line in summary(board)
    ]
    return text.pipe_table(HEADER, rows, RIGHT)


def _ignored(board: Board) -> list[str]:
    """The files that do not count, those of one folder with one reason on one line."""
    if not board.ignored:
        return []
    groups: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for item in board.ignored:
        path = PurePosixPath(text.in_folder(item.path, board.folder))
        groups[path.parent.as_posix(), text.in_folder(item.reason, board.folder)].append(path.name)
    count = text.count(len(board.ignored), "file")
    lines = [
        f"- `{folder}/` {', '.join(f'`{name}`' for name in names)}: {text.sentence(reason)}"
        for (folder, reason), names in groups.items()
    ]
    return [
        "## Files that do not count",
        "",
        f"{count} under {board.folder}/ left out of the tables above, with the reason.",
        "",
        *lines,
    ]
