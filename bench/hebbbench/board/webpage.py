"""The board as one web page: no network, no framework; rows can be sorted and filtered, and show their seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from hebbbench.board import text
from hebbbench.board.alignment import Alignments, asked, matrix
from hebbbench.board.columns import Column, shown_columns
from hebbbench.board.content import Board
from hebbbench.board.rows import BACKPROP, RANDOM, Row, Table
from hebbbench.board.section import Remark, measured_by, place_of, remarks, without_results, work
from hebbbench.board.summary import HEADER, RIGHT, summary
from hebbbench.protocol import Protocol
from hebbbench.record.card import BADGES, LOCALITY, badges

WIDTH, LEFT, SPAN = 240, 40, 150
"""Of a strip of seeds, in pixels: all of it, where random features lie, and from there to backprop."""
NARROW = ("tier", "rule", "accuracy", "gap", "over_random", "notes")
"""The columns that stand first, within sight on a narrow screen."""
EDGE = 4
"""Where what lies further out is drawn, so that a dot is not cut."""


@dataclass(frozen=True)
class Scale:
    """Where accuracies lie in a strip: from random features, or guessing, to backprop, or the best seed."""

    low: float
    high: float
    low_name: str
    high_name: str

    def x(self, value: float) -> float:
        """Pixels from the left edge; what lies far outside the scale is at an edge."""
        return round(min(max(LEFT + SPAN * (value - self.low) / (self.high - self.low), EDGE), WIDTH - EDGE), 1)

    def beyond(self, value: float) -> bool:
        """Whether a value is drawn at an edge, for it lies further out."""
        return self.x(value) in (EDGE, WIDTH - EDGE)


def web_page(board: Board) -> str:
    """The whole page: the summary, a section a protocol, and the files that do not count."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["prose"] = prose
    template = environment.from_string((files("hebbbench.board") / "webpage.html").read_text(encoding="utf-8"))
    sections = [_section(own, board) for own in board.by_protocol().values()]
    sections += [_aligned(measured) for measured in board.alignments]
    return template.render(
        folder=board.folder,
        summary={"header": HEADER, "right": RIGHT, "lines": summary(board)},
        aligned=[measured.protocol.name for measured in board.alignments],
        sections=sections,
        localities=LOCALITY,
        badges=BADGES,
        ignored=[
            (text.in_folder(item.path, board.folder), text.in_folder(item.reason, board.folder))
            for item in board.ignored
        ],
        strip={"width": WIDTH, "low": LEFT, "high": LEFT + SPAN},
    )


def prose(plain: str) -> Markup:
    """Text with `names` between backticks, as HTML."""
    parts = re.split(r"`([^`]*)`", plain)
    return Markup("").join(
        Markup(f"<code>{escape(part)}</code>") if i % 2 else escape(part) for i, part in enumerate(parts)
    )


def _section(tables: Sequence[Table], board: Board) -> dict[str, Any]:
    protocol = tables[0].protocol
    measured = [table for table in tables if table.rows]
    return {
        **_head(protocol, work(protocol, tables)),
        "tables": [_table(table, board.folder) for table in measured],
        "empty": without_results(tables) if len(measured) < len(tables) else "",
        "remarks": remarks(protocol, tables) if measured else [],
    }


def _aligned(measured: Alignments) -> dict[str, Any]:
    """The section of a protocol that measured alignment: a matrix of cosines, without strips."""
    protocol = measured.protocol
    header, lines = matrix(measured)
    printed = "Lines in italics are published numbers, not measured here and never ranked. Source: "
    sources = sorted({f"{entry.source}{'; ' + entry.note if entry.note else ''}" for entry in protocol.published})
    said = [*measured_by(measured.results), *([printed + "; ".join(sources)] if sources else [])]
    work_done = f"Protocol version {protocol.version}, hash `{protocol.hash[:12]}`. {asked(protocol)}".replace("*", "")
    return {
        **_head(protocol, work_done),
        "tables": [],
        "matrix": {"header": header, "lines": lines} if lines else None,
        "empty": "" if lines else "No results yet.",
        "remarks": [Remark("", "", said)] if lines else [],
    }


def _head(protocol: Protocol, work_done: str) -> dict[str, Any]:
    about = {"name": protocol.name, "title": protocol.title, "description": protocol.description}
    return {**about, "work": work_done, "matrix": None}


def _table(table: Table, folder: str) -> dict[str, Any]:
    columns = shown_columns(table)
    columns.sort(key=lambda column: column.key not in NARROW)  # what a row says of itself, before what it cost
    scale = scale_of(table)
    return {
        "axes": text.axes_text(table.axes),
        "columns": columns,
        "scale": scale,
        "rows": [
            {
                "cells": [_cell(column, row, folder) for column in columns],
                "kind": "control" if row.rule in table.protocol.controls else "" if row.ranked else "unranked",
                "strip": _strip(row, scale),
            }
            for row in table.rows
        ],
        "untested": any(row.tier is not None and not row.tier.tested for row in table.rows),
    }


def scale_of(table: Table) -> Scale | None:
    """The scale of a table's strips; None if no seed has a value."""
    values = [value for row in table.rows for value in row.values.values()]
    if not values:
        return None
    bp, random = table.row(BACKPROP), table.row(RANDOM)
    low, low_name = table.protocol.chance or 0.0, "guessing"
    if random is not None and random.accuracy is not None:
        low, low_name = random.accuracy.mean, RANDOM
    high, high_name = max(values), "best seed"
    if bp is not None and bp.accuracy is not None:
        high, high_name = bp.accuracy.mean, BACKPROP
    if high <= low:
        low, low_name, high, high_name = min(values) - 0.01, "", max(values) + 0.01, ""
    return Scale(low, high, f"{low_name} {text.percent(low)}", f"{high_name} {text.percent(high)}")


def _cell(column: Column, row: Row, folder: str) -> Mapping[str, Any]:
    number = None if column.number is None else column.number(row)
    about = ""
    if column.key == "plausibility" and row.card is not None:
        about = ", ".join(badges(row.card))
    if column.key == "published":
        about = "; ".join(entry.source for entry in row.published)
    return {
        "key": column.key,
        "text": column.cell(row),
        "number": None if number is None else round(number, 10),
        "about": about,
        "link": f"{text.quoted(place_of(row, folder))}/" if column.key == "rule" else "",
    }


def _strip(row: Row, scale: Scale | None) -> dict[str, Any] | None:
    """Where a row's mean and its seeds lie."""
    if scale is None or row.accuracy is None:
        return None
    return {
        "mean": scale.x(row.accuracy.mean),
        "seeds": [(scale.x(value), scale.beyond(value)) for _, value in sorted(row.values.items())],
        "said": ", ".join(f"seed {seed}: {text.percent(value)} %" for seed, value in sorted(row.values.items())),
    }
