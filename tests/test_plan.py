"""The planned matrix: every cell is there, and each is done, failed or missing."""

from __future__ import annotations

from pathlib import Path

from board_fixtures import DIGITS, SEEDS, WIDTHS, make_result, make_sources, store_all
from hebbbench.board import sift
from hebbbench.plan import CellStatus, axis_points, missing_by_protocol, plan, tally


def cells_of(root: Path) -> list[CellStatus]:
    sources = make_sources(root)
    return plan(sources, sift(sources))


def test_without_results_controls_and_named_rules_are_missing(tmp_path: Path) -> None:
    cells = cells_of(tmp_path)
    assert {cell.state for cell in cells} == {"missing"}
    rules = {name: {cell.rule for cell in cells if cell.protocol == name} for name in ("digits", "widths")}
    assert rules["digits"] == {"bp", "random", "softhebb", "oja", "covariance"}
    assert rules["widths"] == {"bp", "random", "softhebb"}
    assert tally(cells).missing == 5 * len(SEEDS) + 3 * 2 * len(WIDTHS.seeds) == tally(cells).planned


def test_states(tmp_path: Path) -> None:
    results = [
        make_result(DIGITS, "bp", 0, 0.97),
        make_result(DIGITS, "bp", 1, None, status="timeout", reason="over an hour"),
        make_result(DIGITS, "bp", 2, 0.97, numerics_version=99),
        make_result(DIGITS, "bp", 3, None),
    ]
    store_all(results, tmp_path)
    cells = [cell for cell in cells_of(tmp_path) if (cell.protocol, cell.rule) == ("digits", "bp")]
    assert [cell.state for cell in cells] == ["done", "failed", "missing", "failed", "missing"]
    assert [cell.note.split(" (")[0] for cell in cells] == [
        "",
        "timeout: over an hour",
        "measured with numerics version 99",
        "no probe.test.accuracy: it was not recorded",
        "",
    ]


def test_any_result_puts_a_rule_on_the_plan(tmp_path: Path) -> None:
    store_all(
        [make_result(DIGITS, "supervised", 0, 0.5), make_result(DIGITS, "fa", 0, 0.5, numerics_version=9)],
        tmp_path,
    )
    cells = [cell for cell in cells_of(tmp_path) if cell.rule in {"supervised", "fa"}]
    assert [(cell.rule, cell.known, cell.state) for cell in cells if cell.seed == 0] == [
        ("fa", True, "missing"),
        ("supervised", False, "done"),
    ]
    assert len(cells) == 2 * len(SEEDS)


def test_axes_span_the_plan(tmp_path: Path) -> None:
    assert axis_points(WIDTHS) == [{"width": 32}, {"width": 64}]
    assert axis_points(DIGITS) == [{}]
    store_all([make_result(WIDTHS, "bp", 0, 0.9, {"width": 64})], tmp_path)
    done = [cell for cell in cells_of(tmp_path) if cell.state == "done"]
    assert [(cell.axes, cell.rule, cell.seed) for cell in done] == [({"width": 64}, "bp", 0)]
    missing = missing_by_protocol(cells_of(tmp_path))
    assert {name: len(cells) for name, cells in missing.items()} == {"digits": 25, "widths": 11}
