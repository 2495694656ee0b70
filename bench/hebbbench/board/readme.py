"""The board's top rows in the README: rules down, protocols across, between two markers."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from hebbbench.board.current import sift
from hebbbench.board.rows import BACKPROP, RANDOM, Row, Table, tables
from hebbbench.board.text import NOTHING, percent
from hebbbench.errors import ResultError
from hebbbench.files import write_atomic
from hebbbench.plan import Sources

BEGIN, END = "<!-- board:begin -->", "<!-- board:end -->"
SHOWN_RULES = 8


def top(sources: Sources) -> str:
    """A Markdown table: the rules measured on most protocols, best first, backprop, and random features.

    Best is the largest mean gain over random features on the protocols a rule was measured on. A protocol is shown if
    backprop or the untrained network has been measured there, and if it has no axes: those are tables of their own.
    (k) marks fewer seeds than the protocol's.
    """
    found = [table for table in tables(sources, sift(sources)) if not table.axes]
    shown = [table for table in found if table.row(BACKPROP) or table.row(RANDOM)]
    if not shown:
        return "No results yet."
    rules = {row.rule for table in shown for row in table.rows if row.accuracy is not None}
    ranked = sorted(rules - {RANDOM}, key=lambda rule: (*_standing(rule, shown), rule))[:SHOWN_RULES]
    if BACKPROP in rules and BACKPROP not in ranked:
        ranked.append(BACKPROP)
    heads = ["accuracy, %", *(_head(table) for table in shown)]
    lines = [[f"`{rule}`", *(_cell(table.row(rule), table) for table in shown)] for rule in ranked]
    lines.append([f"`{RANDOM}` (nothing learnt)", *(_cell(table.row(RANDOM), table) for table in shown)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, ["---", *["---:"] * len(shown)], *lines])


def _standing(rule: str, shown: list[Table]) -> tuple[int, float]:
    """Sort key: tables in which the rule and random features both stand, and its mean gain there; most first."""
    gaps = []
    for table in shown:
        row, random = table.row(rule), table.row(RANDOM)
        if row is not None and row.accuracy is not None and random is not None and random.accuracy is not None:
            gaps.append(row.accuracy.mean - random.accuracy.mean)
    return -len(gaps), -mean(gaps) if gaps else 0.0


def _head(table: Table) -> str:
    axes = "".join(f", {name} = {value}" for name, value in sorted(table.axes.items()))
    return f"[{table.protocol.name}](LEADERBOARD.md#{table.protocol.name}){axes}"


def _cell(row: Row | None, table: Table) -> str:
    if row is None or row.accuracy is None:
        return NOTHING
    sd = f" ± {percent(row.accuracy.sd)}" if row.accuracy.sd is not None else ""
    fewer = f" ({row.accuracy.n})" if row.accuracy.n < len(table.protocol.seeds) else ""
    return f"{percent(row.accuracy.mean)}{sd}{fewer}"


def with_rows(text: str, rows: str, path: Path) -> str:
    """`text` with what stands between the markers replaced by `rows`.

    Raises:
        ResultError: a marker is missing, or stands twice.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(END) < text.index(BEGIN):
        raise ResultError(f"{path} needs the markers {BEGIN} and {END} once each, in this order.")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{rows}\n{END}{rest.partition(END)[2]}"


def readme_beside(board: Path) -> Path | None:
    """The README that shows the top rows of this board: README.md with markers, beside a LEADERBOARD.md; or None."""
    readme = board.with_name("README.md")
    if board.name != "LEADERBOARD.md" or not readme.is_file() or BEGIN not in readme.read_text(encoding="utf-8"):
        return None
    return readme


def refresh(path: Path, rows: str) -> None:
    """Write `rows` between the markers of the file at `path`, whole or not at all."""
    write_atomic(path, with_rows(path.read_text(encoding="utf-8"), rows, path).encode(), "--output")


def stale(path: Path, rows: str) -> bool:
    """Whether the file at `path` shows other rows."""
    text = path.read_text(encoding="utf-8")
    return text != with_rows(text, rows, path)
