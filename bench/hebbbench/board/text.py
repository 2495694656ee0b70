"""How numbers and words look on the board. Nothing here depends on locale, time or library versions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

from hebbbench.board.statistics import Difference, Summary
from hebbbench.plan import Axes

NOTHING = "–"
MEBIBYTE = 2**20


def percent(fraction: float) -> str:
    """A fraction as percent with two decimals, without the sign of its own."""
    return f"{100 * fraction:.2f}"


def points(fraction: float) -> str:
    """A difference of fractions as signed percentage points with two decimals; zero is +0.00."""
    text = f"{100 * fraction:+.2f}"
    return "+0.00" if text == "-0.00" else text


def spread(summary: Summary | None) -> str:
    """mean ± standard deviation (n), in percent."""
    if summary is None:
        return NOTHING
    sd = f" ± {percent(summary.sd)}" if summary.sd is not None else ""
    return f"{percent(summary.mean)}{sd} ({summary.n})"


def gap(difference: Difference | None) -> str:
    """Mean difference [95 % interval], in points."""
    if difference is None:
        return NOTHING
    if difference.low is None or difference.high is None:
        return points(difference.mean)
    return f"{points(difference.mean)} [{points(difference.low)}, {points(difference.high)}]"


def p_value(p: float) -> str:
    """With three decimals."""
    return f"{p:.3f}" if p >= 0.0005 else "< 0.001"


def seconds(value: float | None) -> str:
    """Seconds: one decimal under 100, none from there on."""
    if value is None:
        return NOTHING
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def mebibytes(value: float | None) -> str:
    """Bytes as whole MiB."""
    return NOTHING if value is None else f"{value / MEBIBYTE:.0f}"


def plain(text: str) -> str:
    """Free text on one line, with nothing in it that Markdown takes for a table, a tag or a comment."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def sentence(text: str) -> str:
    """`plain` text with a full stop."""
    return plain(text).rstrip(".") + "."


def axes_text(axes: Axes) -> str:
    """The axis values as 'name = value, name = value'."""
    return ", ".join(f"{name} = {value}" for name, value in axes.items())


def in_folder(text: str, folder: str) -> str:
    """The record's own paths in a text, results/…, as they are in the folder that was looked at."""
    return re.sub(r"(?<![\w./-])results/", lambda _: f"{folder}/", text)


def link(label: str, target: str) -> str:
    """A Markdown link."""
    return f"[{plain(label)}]({quoted(target)})"


def quoted(target: str) -> str:
    """A path as a link's target."""
    return quote(target, safe="/#=,.")


def count(number: int, thing: str) -> str:
    """'1 file', '2 files'."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def few(names: Sequence[str], shown: int = 3) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def spans(numbers: Sequence[int]) -> list[str]:
    """Ascending numbers as ranges: 0, 1, 2, 4 → '0-2', '4'."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]


def pipe_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[str]) -> list[str]:
    """A Markdown table, padded to be read as text too; columns named in `right` are aligned to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(header, cells, widths, strict=True)
        )
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * (w - 1) + (":" if name in right else "-") for name, w in zip(header, widths, strict=True)]
    return [line(header), line(rule), *(line(row) for row in rows)]
