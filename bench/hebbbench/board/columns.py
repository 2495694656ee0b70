"""What the board says of a row, column by column: every form of the board shows these cells, or some of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hebbbench.board import text
from hebbbench.board.rows import Row, Table
from hebbbench.board.text import NOTHING
from hebbbench.protocol import HEADLINES
from hebbbench.record.card import letters, locality

SCORES = {
    "probe.test.accuracy": ("accuracy %", "a linear read-out trained on the network's frozen features"),
    "end_to_end.test.accuracy": ("end-to-end %", "the network's own output"),
}
INTERVAL = "mean difference at the same seeds, in percentage points [95 % confidence interval]"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        key: its name within the code. head: its name on the page.
        cell: a row's text, as it is: nothing in it is escaped for Markdown or HTML.
        meaning: of the column, in a few words.
        number: what a row is sorted by; None for a column of words.
        right: whether it is aligned to the right. always: whether it stands even where no row has anything to say.
    """

    key: str
    head: str
    cell: Callable[[Row], str]
    meaning: str
    number: Callable[[Row], float | None] | None = None
    right: bool = False
    always: bool = False


def columns(table: Table) -> list[Column]:
    """Every column that a table may have, in order."""
    headline, other = SCORES[table.protocol.headline], SCORES[other_score(table)]
    spans = tier_spans(table.rows)
    return [
        Column(
            "tier", "tier", lambda row: tier_text(row, spans.get(row.rule)), "rows of one tier cannot be told apart",
            lambda row: row.tier.number if row.tier is not None else None, right=True, always=True,
        ),
        Column("rule", "rule", lambda row: row.rule, "the learning rule; leads to its result files", always=True),
        Column(
            "accuracy", headline[0], lambda row: text.spread(row.accuracy),
            f"test accuracy of {headline[1]}: mean ± standard deviation (seeds)",
            lambda row: row.accuracy.mean if row.accuracy is not None else None, always=True,
        ),
        Column(
            "gap", "gap to bp, points", lambda row: text.gap(row.gap), f"to backprop: {INTERVAL}",
            lambda row: row.gap.mean if row.gap is not None else None, always=True,
        ),
        Column(
            "over_random", "gap to random, points", lambda row: text.gap(row.over_random),
            f"to the untrained network: {INTERVAL}",
            lambda row: row.over_random.mean if row.over_random is not None else None,
        ),
        Column(
            "top5", "top-5 %", lambda row: text.spread(row.top5), "how often the class is among the five likeliest",
            lambda row: row.top5.mean if row.top5 is not None else None,
        ),
        Column(
            "other", other[0], lambda row: text.spread(row.other), f"test accuracy of {other[1]}",
            lambda row: row.other.mean if row.other is not None else None,
        ),
        Column(
            "best_epoch", "best test epoch % (as published)", lambda row: text.spread(row.best_epoch),
            "the network's own output at its best epoch, chosen with the test split in hand; never ranked",
            lambda row: row.best_epoch.mean if row.best_epoch is not None else None,
        ),
        Column(
            "published", "published %", published_text, "what others printed; not measured here, never ranked",
            lambda row: row.published[0].value if row.published else None,
        ),
        Column(
            "epochs", "epochs", lambda row: " / ".join(row.epochs), "of training, as the recipe has it",
            lambda row: max(result.recipe.training.epochs for result in row.results),
        ),
        Column(
            "passes", "passes", lambda row: NOTHING if row.passes is None else f"{row.passes:.1f}",
            "arithmetic of a training step, in forward passes", lambda row: row.passes, right=True,
        ),
        _cost("train", "train s", "train_seconds", "seconds of training, median over seeds", text.seconds),
        _cost("readout", "read-out s", "probe_seconds", "seconds of training the read-out, median", text.seconds),
        _cost("memory", "memory MiB", "peak_memory_bytes", "peak memory, median over seeds", text.mebibytes),
        Column("plausibility", "plausibility", plausibility_text, "measured: what an update depends on; badges"),
        Column(
            "signals", "signals", lambda row: row.sees if row.card is None else NOTHING,
            "what an update asked to see, where no plausibility was measured",
        ),
        Column("recipe", "recipe", lambda row: " / ".join(row.provenance), "where the rule's settings come from"),
        Column("notes", "notes", lambda row: ", ".join(notes(row)) or NOTHING, "why a row is not ranked, and more"),
    ]  # fmt: skip


def _cost(key: str, head: str, name: str, meaning: str, shown: Callable[[float | None], str]) -> Column:
    """A column of a field of `Cost`."""
    return Column(
        key, head, lambda row: shown(row.median_cost(name)), meaning, lambda row: row.median_cost(name), right=True
    )


def shown_columns(table: Table, left_out: Sequence[str] = ()) -> list[Column]:
    """The columns in which some row of the table has something to say, and those that always stand."""
    return [
        column
        for column in columns(table)
        if column.key not in left_out and (column.always or any(column.cell(row) != NOTHING for row in table.rows))
    ]


def other_score(table: Table) -> str:
    """The metric of accuracy that is not the protocol's headline."""
    (other,) = (name for name in HEADLINES if name != table.protocol.headline)
    return other


def tier_spans(rows: Sequence[Row]) -> dict[str, tuple[int, int]]:
    """Rule → its tier and the lowest tier among the rows of higher mean: (1, 4) shares tier 1, but stands below rows
    of tier 4. Rows without a tier are left out.

    Args:
        rows: of a table, best first.
    """
    lowest, found = 0, {}
    for row in rows:
        if row.tier is not None:
            lowest = max(lowest, row.tier.number)
            found[row.rule] = (row.tier.number, lowest)
    return found


def tier_text(row: Row, span: tuple[int, int] | None) -> str:
    """`2`, `1–4`, or `1*` for a row that no test could tell from the best of its tier."""
    if row.tier is None or span is None:
        return NOTHING
    first, last = span
    return (f"{first}" if first == last else f"{first}–{last}") + ("" if row.tier.tested else "*")


def published_text(row: Row) -> str:
    """What others printed of the rule here, in percent."""
    printed = (
        text.percent(entry.value) + (f" ± {text.percent(entry.sd)}" if entry.sd is not None else "")
        for entry in row.published
    )
    return "; ".join(printed) or NOTHING


def plausibility_text(row: Row) -> str:
    """The measured locality and the letters of the badges."""
    return f"{locality(row.card)} {letters(row.card)}".strip() if row.card is not None else NOTHING


def notes(row: Row) -> list[str]:
    """Why a row is not ranked, how it stands against random features, and whether its rule is from elsewhere."""
    return [
        *row.flaws,
        *([row.standing] if row.standing else []),
        *(["rule not in repository"] if row.known is None else []),
    ]
