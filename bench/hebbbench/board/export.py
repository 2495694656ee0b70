"""The board for other programs: CSV with a line a row, and JSON with the seeds too. The same results, the same bytes.

Accuracies, differences and cosines are as in result files: fractions, not percent.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hebbbench.board import text
from hebbbench.board.alignment import AlignmentRow
from hebbbench.board.columns import notes, other_score, tier_spans
from hebbbench.board.content import Board
from hebbbench.board.rows import Row, Table
from hebbbench.board.statistics import BySeed, Difference, Summary
from hebbbench.plan import Axes, tally
from hebbbench.protocol import HEADLINES, Protocol
from hebbbench.record.card import letters, locality
from hebbbench.record.schema import NUMERICS_VERSION, Result
from hebbbench.record.store import result_path
from hebbbench.validation import canonical_json

DIGITS = 10
"""Decimals of a computed number: further ones may depend on the version of a library."""

FIELDS = (
    "protocol", "version", "hash", "axes", "metric", "rule", "ranked", "tier", "tier_last", "tier_tested",
    "n", "mean", "sd",
    "gap_to_bp", "gap_to_bp_low", "gap_to_bp_high", "gap_to_random", "gap_to_random_low", "gap_to_random_high",
    "probe", "probe_sd", "end_to_end", "end_to_end_sd", "top5", "top5_sd",
    "best_epoch", "best_epoch_sd",
    "epochs", "passes", "train_seconds", "probe_seconds", "peak_memory_bytes",
    "locality", "badges", "provenance", "trials", "notes", "folder",
)  # fmt: skip
"""The columns of the CSV file, in order."""


def csv_text(board: Board) -> str:
    """One line a row of the board, by protocol and axis values, best first."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(FIELDS)
    for protocol in _protocols(board):
        for table in protocol["tables"]:
            for row in table["rows"]:
                line = _line(protocol, table["axes"], row)
                writer.writerow([line[field] for field in FIELDS])
    return out.getvalue()


def json_text(board: Board) -> str:
    """The same nested, with the seeds, published numbers, how much is missing, and the files that do not count."""
    whole = {
        "numerics_version": NUMERICS_VERSION,
        "protocols": _protocols(board),
        "ignored": [
            {"file": text.in_folder(item.path, board.folder), "reason": text.in_folder(item.reason, board.folder)}
            for item in board.ignored
        ],
    }
    return json.dumps(whole, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _protocols(board: Board) -> list[dict[str, Any]]:
    """Every protocol with its tables, by name."""
    found = [
        _protocol(
            own[0].protocol, [{"axes": table.axes, "rows": _ranked_rows(table, board.folder)} for table in own], board
        )
        for own in board.by_protocol().values()
    ]
    for measured in board.alignments:
        protocol = measured.protocol
        tables: dict[str, dict[str, Any]] = {}
        for row in measured.rows:
            table = tables.setdefault(canonical_json(row.axes), {"axes": row.axes, "rows": []})
            table["rows"].append(_aligned_row(row, protocol, board.folder))
        found.append(_protocol(protocol, list(tables.values()), board))
    return sorted(found, key=lambda protocol: str(protocol["name"]))


def _protocol(protocol: Protocol, tables: Sequence[Mapping[str, Any]], board: Board) -> dict[str, Any]:
    runs = tally(board.cells_of(protocol))
    return {
        "name": protocol.name,
        "version": protocol.version,
        "hash": protocol.hash,
        "title": protocol.title,
        "metric": protocol.headline,
        "seeds": sorted(protocol.seeds),
        "chance": protocol.chance,
        "most_epochs": protocol.budget.epochs,
        "controls": sorted(protocol.controls),
        "published": [entry.model_dump(mode="json") for entry in protocol.published],
        "runs": {"planned": runs.planned, "done": runs.done, "failed": runs.failed, "missing": runs.missing},
        "tables": list(tables),
    }


def _ranked_rows(table: Table, folder: str) -> list[dict[str, Any]]:
    spans = tier_spans(table.rows)
    return [_row(row, table, spans.get(row.rule), folder) for row in table.rows]


def _row(row: Row, table: Table, span: tuple[int, int] | None, folder: str) -> dict[str, Any]:
    scores = {table.protocol.headline: row.accuracy, other_score(table): row.other}
    tier = row.tier
    memory = row.median_cost("peak_memory_bytes")
    return {
        "rule": row.rule,
        "ranked": row.ranked,
        "tier": None if tier is None or span is None else {"first": span[0], "last": span[1], "tested": tier.tested},
        "headline": _summary(row.accuracy),
        "gap_to_bp": _difference(row.gap),
        "gap_to_random": _difference(row.over_random),
        "probe": _summary(scores[HEADLINES[0]]),
        "end_to_end": _summary(scores[HEADLINES[1]]),
        "top5": _summary(row.top5),
        "best_epoch": _summary(row.best_epoch),
        "epochs": list(row.epochs),
        "passes": _rounded(row.passes),
        "train_seconds": _rounded(row.median_cost("train_seconds")),
        "probe_seconds": _rounded(row.median_cost("probe_seconds")),
        "peak_memory_bytes": None if memory is None else round(memory),
        "plausibility": row.card and {"locality": locality(row.card), "badges": letters(row.card)},
        "recipe": {
            "provenance": sorted({recipe.provenance for recipe in row.recipes}),
            "trials": sorted({recipe.search.trials for recipe in row.recipes if recipe.search is not None}),
        },
        "notes": notes(row),
        **_seeds(row.rule, row.axes, table.protocol, row.results, row.values, folder),
    }


def _aligned_row(row: AlignmentRow, protocol: Protocol, folder: str) -> dict[str, Any]:
    return {
        "rule": row.rule,
        "ranked": False,
        "headline": _summary(row.cosine),
        "notes": [f"{word} ({count})" for word, count in row.fates.items()],
        **_seeds(row.rule, row.axes, protocol, row.results, row.values, folder),
    }


def _seeds(
    rule: str, axes: Axes, protocol: Protocol, results: Sequence[Result], values: BySeed, folder: str
) -> dict[str, Any]:
    """Where a row's results lie, and what each has."""
    place = result_path(Path(folder), protocol.name, rule, axes, 0).parent
    seeds = [
        {"seed": result.seed, "status": result.status, "reason": result.reason, "value": values.get(result.seed)}
        for result in results
    ]
    return {"folder": f"{place.as_posix()}/", "seeds": seeds}


def _summary(summary: Summary | None) -> dict[str, Any] | None:
    if summary is None:
        return None
    return {"mean": _rounded(summary.mean), "sd": _rounded(summary.sd), "n": summary.n}


def _difference(difference: Difference | None) -> dict[str, Any] | None:
    if difference is None:
        return None
    numbers = {name: _rounded(getattr(difference, name)) for name in ("mean", "low", "high", "p")}
    return {**numbers, "n": difference.n}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def _line(protocol: Mapping[str, Any], axes: Axes, row: Mapping[str, Any]) -> dict[str, str]:
    """A row of the JSON board as a line of CSV, by column; nothing where there is no value."""

    def read(*path: str) -> str:
        node: Any = row
        for part in path:
            node = node.get(part) if isinstance(node, Mapping) else None
        return _cell(node)

    found = {
        "protocol": protocol["name"],
        "version": _cell(protocol["version"]),
        "hash": protocol["hash"],
        "axes": _cell([f"{name}={value}" for name, value in axes.items()]),
        "metric": protocol["metric"],
        "tier": read("tier", "first"),
        "tier_last": read("tier", "last"),
        "tier_tested": read("tier", "tested"),
        "n": _cell(row["headline"]["n"] if row["headline"] else 0),
        "mean": read("headline", "mean"),
        "sd": read("headline", "sd"),
        "locality": read("plausibility", "locality"),
        "badges": read("plausibility", "badges"),
        "provenance": read("recipe", "provenance"),
        "trials": read("recipe", "trials"),
    }
    for name in ("gap_to_bp", "gap_to_random"):
        found |= {name: read(name, "mean"), f"{name}_low": read(name, "low"), f"{name}_high": read(name, "high")}
    for name in ("probe", "end_to_end", "top5", "best_epoch"):
        found |= {name: read(name, "mean"), f"{name}_sd": read(name, "sd")}
    return {field: found.get(field, read(field)) for field in FIELDS}


def _cell(value: Any) -> str:
    """A value as a cell: nothing for none, `true` and `false`, a list with `; ` between its parts."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "; ".join(map(str, value))
    return str(value)
