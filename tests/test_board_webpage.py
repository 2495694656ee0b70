"""The board as a web page: complete, escaped, without a network, and with every seed to be seen."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from board_fixtures import (
    DIGITS,
    full_sources,
    make_protocol,
    make_result,
    make_sources,
    markdown_rows,
    small_results,
    store_all,
)
from hebbbench import board
from hebbbench.board.output import rendered
from hebbbench.board.webpage import EDGE, LEFT, SPAN, WIDTH, scale_of
from hebbbench.plan import Sources


@pytest.fixture
def full(tmp_path: Path) -> Sources:
    return full_sources(tmp_path / "results")


class Page(HTMLParser):
    """Rows of the tables below the summary: (section, number of the table in it, class, cells by class, links)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.section, self.table = "", 0
        self.rows: list[dict[str, Any]] = []
        self.text = ""
        self._cell: str | None = None
        self._titled = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        kind = known.get("class") or ""
        if tag == "section":
            self.section, self.table = known["id"] or "", 0
        elif tag == "table":
            self.table += 1
        elif tag == "tr" and kind.startswith("row"):
            self.rows.append({"at": (self.section, self.table), "kind": kind, "cells": {}, "dots": [], "said": ""})
        elif tag == "td" and self.rows:
            self._cell = kind.partition(" ")[0]
            self.rows[-1]["cells"].setdefault(self._cell, "")
        elif tag == "a" and self._cell == "rule":
            self.rows[-1]["link"] = known["href"]
        elif tag == "circle":
            self.rows[-1]["dots"].append((float(known["cx"] or 0), kind))
        elif tag == "title":
            self._titled = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._cell = None
        elif tag == "title":
            self._titled = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._titled and self.rows:
            self.rows[-1]["said"] += data
        elif self._cell is not None and self.rows:
            self.rows[-1]["cells"][self._cell] += data.strip()


def test_every_row_and_value_of_the_page_stands_once_on_the_web_page(full):
    whole = board.collect(full)
    page, shown = markdown_rows(rendered(whole)), Page(rendered(whole, ".html"))
    keys = {
        "tier": "tier", "accuracy %": "accuracy", "gap to bp, points": "gap", "end-to-end %": "other",
        "published %": "published", "epochs": "epochs", "train s": "train", "memory MiB": "memory",
        "plausibility": "plausibility", "signals": "signals", "recipe": "recipe", "notes": "notes",
    }  # fmt: skip
    places = {
        ("digits", 1): ("digits", ""),
        ("widths", 1): ("widths", "width = 32"),
        ("widths", 2): ("widths", "width = 64"),
    }
    rows = {(*places[row["at"]], row["cells"]["rule"]): row for row in shown.rows if row["at"] in places}
    assert rows.keys() == page.keys()
    assert len(rows) == sum(row["at"] in places for row in shown.rows)
    for place, cells in page.items():
        row = rows[place]
        for head, key in keys.items():
            if head in cells:
                assert row["cells"][key] == cells[head].replace("\\", "")
        assert row["link"] == f"results/{place[0]}/{place[2]}/" + (place[1].replace(" ", "") + "/") * bool(place[1])
    assert sum("control" in row["kind"] for row in rows.values()) == 2 + 0 + 1
    assert [place[2] for place, row in rows.items() if "unranked" in row["kind"]] == ["fa", "supervised", "covariance"]


def test_each_seed_is_a_dot_that_says_its_value(full):
    shown = Page(rendered(board.collect(full), ".html"))
    for row in shown.rows:
        if row["at"][0] in ("digits", "widths"):
            folder = full.root / row["link"].removeprefix("results/")
            raw = [json.loads(path.read_text()) for path in sorted(folder.glob("seed-*.json"))]
            said = [
                f"seed {r['seed']}: {100 * r['metrics']['probe.test.accuracy']['value']:.2f} %"
                for r in raw
                if r["status"] == "ok"
            ]
            assert row["said"] == ", ".join(said)
            assert len(row["dots"]) == len(said)


def test_a_strip_reaches_from_random_to_backprop(tmp_path):
    store_all([*small_results(), make_result(DIGITS, "fa", 0, 0.0), make_result(DIGITS, "fa", 1, 1.0)], tmp_path)
    shown = Page(rendered(board.collect(make_sources(tmp_path)), ".html"))
    dots = {row["cells"]["rule"]: row["dots"] for row in shown.rows}
    # random has 0.5, backprop 0.85 in the mean
    assert dots["random"] == [(LEFT, "seed")] * 2
    assert dots["oja"] == [(round(LEFT + SPAN * 0.2 / 0.35, 1), "seed"), (round(LEFT + SPAN * 0.14 / 0.35, 1), "seed")]
    assert dots["fa"] == [(EDGE, "beyond"), (WIDTH - EDGE, "beyond")]


@pytest.mark.parametrize(
    ("rules", "low", "high"),
    [
        (("oja",), ("guessing 10.00", 0.1), ("best seed 70.00", 0.7)),
        (("oja", "random"), ("random 50.00", 0.5), ("best seed 70.00", 0.7)),
        (("oja", "bp"), ("guessing 10.00", 0.1), ("bp 85.00", 0.85)),
    ],
)
def test_a_strip_without_a_control_begins_at_guessing_and_ends_at_the_best_seed(tmp_path, rules, low, high):
    store_all([result for result in small_results() if result.rule.name in rules], tmp_path)
    (table,) = (table for table in board.collect(make_sources(tmp_path)).tables if table.rows)
    scale = scale_of(table)
    assert scale is not None
    assert (scale.low_name, scale.low, scale.high_name, scale.high) == pytest.approx((*low, *high))


def test_rows_that_all_score_alike_have_a_strip(tmp_path):
    store_all([make_result(DIGITS, rule, 0, 0.1) for rule in ("bp", "random")], tmp_path)
    shown = Page(rendered(board.collect(make_sources(tmp_path)), ".html"))
    assert [row["dots"] for row in shown.rows] == [[(LEFT + SPAN / 2, "seed")]] * 2


def test_text_is_escaped(tmp_path):
    hostile = "<script>alert('x')</script> & <b>"
    protocol = make_protocol(
        "digits",
        title=hostile,
        description=f"`code` {hostile}",
        published=[{"rule": "oja", "value": 0.5, "source": hostile, "note": '"quoted" > ' + hostile}],
    )
    failed = make_result(protocol, "fa", 0, None, status="failed", reason=hostile)
    device = failed.environment.model_copy(update={"device_name": hostile}).model_dump(mode="json")
    store_all([make_result(protocol, "oja", 0, 0.7, environment=device), failed], tmp_path)
    (tmp_path / "<b>.json").write_text("{")
    text = rendered(board.collect(make_sources(tmp_path, protocols={"digits": protocol})), ".html")
    assert text.count("<script>") == 1
    assert "<b>.json" not in text
    assert "alert(&#39;x&#39;)" in text
    assert "<code>code</code> &lt;script&gt;" in text
    assert Page(text).text.count(hostile) == 6  # title, description, device, failure, source, note


def test_the_web_page_needs_no_network(full):
    text = rendered(board.collect(full), ".html")
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<img|<iframe|src=|fetch\(|XMLHttpRequest", text)
    assert text.count("<script>") == 1
    assert "prefers-color-scheme: dark" in text
    assert re.findall(r'<section id="([^"]+)"', text) == ["digits", "widths", "cosines", "ignored"]
    assert text.index('id="summary"') < text.index("<section")


def test_published_numbers_are_marked_as_such(full):
    text = rendered(board.collect(full), ".html")
    shown = Page(text)
    cells = [row["cells"]["published"] for row in shown.rows if row["at"] == ("digits", 1)]
    assert sorted(cells) == sorted(["99.90", "96.50 ± 0.10", *["–"] * 5])
    assert ".published { font-style: italic" in text
    assert text.count("Published numbers (not measured here, never ranked)") == 2
    assert [row["kind"] for row in shown.rows if row["at"][0] == "cosines"] == ["row", "row published"]
