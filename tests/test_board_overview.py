"""A protocol with one axis has its accuracies, its paper's read-out and its Gini coefficients at a glance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from board_fixtures import DIGITS, WIDTHS, make_result, make_sources, store_all
from hebbbench.board import sift
from hebbbench.board.overview import overview
from hebbbench.board.rows import tables
from hebbbench.record.schema import Metric


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
    sources = make_sources(tmp_path)
    own = [table for table in tables(sources, sift(sources)) if table.protocol is WIDTHS]
    return overview(WIDTHS, own)


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
    assert cells(lines, "Gini", "softhebb") == ["0.25 → 0.55", "0.25 → 0.55"]
    last = "\n".join(lines).partition("**Gini")[2]
    assert "| bp" not in last  # a rule that has none is left out


def test_without_an_axis_or_results_there_is_no_overview(tmp_path):
    store_all([make_result(DIGITS, "bp", 0, 0.9)], tmp_path)
    sources = make_sources(tmp_path)
    found = tables(sources, sift(sources))
    assert overview(DIGITS, [table for table in found if table.protocol is DIGITS]) == []
    assert overview(WIDTHS, [table for table in found if table.protocol is WIDTHS]) == []
