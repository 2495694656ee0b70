"""A protocol with one axis has its accuracies, its paper's read-out and its Gini coefficients at a glance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from board_fixtures import DIGITS, PROTOCOLS, WIDTHS, make_result, make_sources, store_all
from hebbbench import registry
from hebbbench.board import sift
from hebbbench.board.overview import PRINTED_GINI, overview
from hebbbench.board.rows import tables
from hebbbench.record.schema import Metric
from hebbbench.sections import Published

START, END = PRINTED_GINI
PRINTED = WIDTHS.model_copy(
    update={
        "published": [
            Published(rule="softhebb", value=0.3, metric=END, source="Roe 2024", axes={"width": 32}),
            *WIDTHS.published,
            Published(rule="softhebb", value=0.7, metric=END, source="Roe 2024", axes={"width": 64}),
            Published(rule="softhebb", value=0.1, metric=START, source="Roe 2024", axes={"width": 64}),
        ]
    }
)
"""WIDTHS with published Gini coefficients: of the end alone at 32 units, of both ends at 64."""


def with_metrics(result: Any, **values: float) -> Any:
    extra = {
        name: Metric(value=value, split="test" if name.startswith("probe") else "train", epoch=1)
        for name, value in values.items()
    }
    return result.model_copy(update={"metrics": {**result.metrics, **extra}})


@pytest.fixture
def lines(tmp_path: Path) -> list[str]:
    results = []
    for width, mean in ((32, 0.90), (64, 0.94)):
        for seed in (0, 1):
            result = make_result(WIDTHS, "softhebb", seed, mean + 0.01 * seed, {"width": width})
            start, end = 0.2 + 0.1 * seed, 0.5 + 0.1 * seed
            extra = {"diagnostics.gini.fc1.start": start, "diagnostics.gini.fc1.end": end}
            results.append(with_metrics(result, **extra, **{"probe.published_protocol.test.max": mean - 0.1}))
        results.append(make_result(WIDTHS, "bp", 0, mean + 0.03, {"width": width}))
    store_all(results, tmp_path)
    sources = make_sources(tmp_path, protocols={**PROTOCOLS, "widths": PRINTED})
    own = [table for table in tables(sources, sift(sources)) if table.protocol is PRINTED]
    return overview(PRINTED, own)


def cells(lines: list[str], heading: str, rule: str) -> list[str]:
    start = next(i for i, line in enumerate(lines) if line.startswith(f"**{heading}"))
    row = next(line for line in lines[start:] if line.startswith(f"| {rule} "))
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


def test_accuracy_stands_by_axis_value_with_the_published_number_in_brackets(lines):
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["rule", "width 32", "width 64"]
    assert cells(lines, "Accuracy", "softhebb") == ["90.50 ± 0.71 (2)", "94.50 ± 0.71 (2) [97.00]"]
    assert cells(lines, "Accuracy", "bp") == ["93.00 (1)", "97.00 (1)"]


def test_the_paper_s_read_out_and_the_gini_coefficients_have_tables_of_their_own(lines):
    assert cells(lines, "The paper's own read-out", "softhebb") == ["80.00", "84.00 [97.00]"]
    assert cells(lines, "Gini", "softhebb") == ["0.25 → 0.55", "0.25 → 0.55 [0.10 → 0.70]"]
    last = "\n".join(lines).partition("**Gini")[2]
    assert "| bp" not in last  # a rule that has none is left out


@pytest.mark.parametrize("name", ["mnist-competitive", "cifar10-competitive"])
def test_both_ends_of_every_published_gini_coefficient_are_found(name):
    entries = [entry for entry in registry.protocol(name).published if "accuracy" not in entry.metric]
    found = {metric: {(e.rule, e.axes["width"]) for e in entries if e.metric == metric} for metric in PRINTED_GINI}
    assert len(entries) == 24  # three rules, four widths, both ends
    assert found[START] == found[END]
    assert len(found[START]) == 12


def test_without_an_axis_or_results_there_is_no_overview(tmp_path):
    store_all([make_result(DIGITS, "bp", 0, 0.9)], tmp_path)
    sources = make_sources(tmp_path)
    found = tables(sources, sift(sources))
    assert overview(DIGITS, [table for table in found if table.protocol is DIGITS]) == []
    assert overview(WIDTHS, [table for table in found if table.protocol is WIDTHS]) == []
