"""A row of the board in words: its numbers are those of the raw files, its reasons those of the tests."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from board_fixtures import (
    CARD,
    DIGITS,
    SEEDS,
    WIDTHS,
    board_results,
    cells_of_lines,
    cosine_result,
    in_environment,
    make_protocol,
    make_result,
    register,
    small_results,
    store_all,
)
from hebbbench import cli
from hebbbench.board import explain
from hebbbench.board.explain import explain_page
from hebbbench.errors import HebbBenchError
from hebbbench.protocol import Protocol
from hebbbench.record.environment import Code

COMMIT = "abc1234" + "0" * 33
HEADINGS = "Standing|Seeds|Settings|Measured|Files that do not count|To measure it|To measure it again"


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Protocol]:
    """The registry's protocols, to which a test may add; the working directory is the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(explain, "code", lambda: Code(COMMIT, False, {}))
    return register(monkeypatch)


def explained(rule: str, *axes: str, protocol: str = "digits", results: str = "results") -> dict[str, list[str]]:
    """Heading → lines."""
    page = explain_page(protocol, rule, axes, Path(results))
    parts = re.split(rf"\n\n(?=(?:{HEADINGS})\n\n)", page)
    found = {"": parts[0].splitlines()}
    for part in parts[1:]:
        heading, _, body = part.partition("\n\n")
        found[heading] = body.splitlines()
    return found


@pytest.fixture
def placed(tmp_path: Path) -> Path:
    """bp before softhebb before random, each in a tier of its own, and oja, whose seeds lie anywhere."""
    means = {"bp": 0.97, "softhebb": 0.93, "random": 0.80}
    noise = [0.002, -0.001, 0.001, -0.002, 0.0]
    wide = [0.05, 0.99, 0.10, 0.98, 0.15]
    found = [
        make_result(DIGITS, rule, seed, mean + noise[(seed + shift) % 5])
        for shift, (rule, mean) in enumerate(means.items())
        for seed in SEEDS
    ]
    found += [make_result(DIGITS, "oja", seed, wide[seed]) for seed in SEEDS]
    store_all(found, tmp_path / "results")
    return tmp_path


def test_the_tests_that_decide_a_tier_are_told(placed):
    standing = explained("softhebb")["Standing"]
    assert standing[0].endswith("frozen features, %: 93.00 ± 0.16 (5), mean ± standard deviation (seeds).")
    assert standing[3] == "Row 2 of 4 by accuracy, tier 2."
    assert standing[4] == "It leads tier 2: no row outside tier 1 has a higher mean."
    assert re.fullmatch(
        r"Tier 1 is led by bp\. Difference to it: -4\.00 \[.*\] points, p < 0\.001, 5 pairs of seeds; "
        r"significant among 3 comparisons \(Holm, α = 0\.05\), so the tier is another\.",
        standing[5],
    )
    assert "It leads tier 1: no row has a higher mean." in explained("bp")["Standing"]
    wide = explained("oja")["Standing"]
    assert "Row 4 of 4 by accuracy, tier 1–3." in wide
    assert any("Tier 1 is led by bp." in line and "not significant among 3 comparisons" in line for line in wide)
    assert "Its mean lies below that of rows of tier 3: its spread is too wide to place it." in wide
    assert "It is no better than random." in wide


def test_gaps_are_those_of_the_raw_files(placed):
    raw = {}
    for rule in ("softhebb", "bp", "random"):
        files = sorted((placed / "results" / "digits" / rule).glob("*.json"))
        raw[rule] = [json.loads(file.read_text())["metrics"]["probe.test.accuracy"]["value"] for file in files]
    rows = [cells for cells in cells_of_lines("\n".join(explained("softhebb")["Seeds"])) if cells[0].isdigit()]
    for seed, row in enumerate(rows):
        value = raw["softhebb"][seed]
        assert row[:5] == [
            str(seed), "ok", f"{100 * value:.2f}",
            f"{100 * (value - raw['bp'][seed]):+.2f}", f"{100 * (value - raw['random'][seed]):+.2f}",
        ]  # fmt: skip
        assert row[-1] == "abc1234"


def test_why_a_row_is_not_ranked_and_what_became_of_each_seed(tmp_path):
    store_all(board_results(), tmp_path / "results")
    page = explained("fa")
    assert any(line.startswith("Not ranked: 3/5 seeds, 1 diverged, 1 not run.") for line in page["Standing"])
    rows = {cells[0]: cells for cells in cells_of_lines("\n".join(page["Seeds"]))}
    assert rows["3"][1:3] == ["diverged", "–"]
    assert rows["3"][-1] == "diverged: loss is not finite"
    assert rows["4"] == ["4", "not run"]


def test_equal_differences_allow_no_test(tmp_path):
    values = {"bp": 0.9, "oja": 0.7}
    store_all(
        [make_result(DIGITS, rule, s, mean + s / 100) for rule, mean in values.items() for s in SEEDS],
        tmp_path / "results",
    )
    lines = explained("oja")["Standing"]
    assert "Row 2 of 2 by accuracy, tier 1*." in lines
    assert any(
        "bp, which leads tier 1, by the same amount at every seed: no test is possible" in line for line in lines
    )


def test_settings_say_where_they_come_from_and_how_they_differ_from_the_protocols(tmp_path):
    store_all(board_results(), tmp_path / "results")
    softhebb, oja, bp = (explained(rule)["Settings"] for rule in ("softhebb", "oja", "bp"))
    assert softhebb[0] == "From: paper. Source: Doe et al. 2023. No search."
    assert re.split("  +", softhebb[-1]) == ["training.epochs", "1", "5"]
    assert oja[0] == (
        "From: searched, in 24 trials and 1 min 30 s on the validation split, of lr. Scores, %: lr=0.1 73.12; lr=9 –."
    )
    assert bp == ["From: default. No search.", "They are the protocol's own."]


def test_published_numbers_and_plausibility_are_told(tmp_path):
    results = [r.model_copy(update={"card": CARD}) if r.rule.name == "softhebb" else r for r in board_results()]
    store_all(results, tmp_path / "results")
    lines = explained("softhebb")["Standing"]
    assert "Published, never ranked: 96.50 ± 0.10 % (test accuracy), Doe et al. 2023, table 2." in lines
    assert "Plausibility, measured: layer, online." in lines


def test_files_that_do_not_count_are_named_with_the_reason(tmp_path):
    store_all([*board_results(), make_result(DIGITS, "oja", 4, 0.8, numerics_version=99)], tmp_path / "runs")
    assert "Files that do not count" not in explained("bp", results="runs")
    page = explained("oja", results="runs")
    assert page["Files that do not count"] == [
        "runs/digits/oja/seed-4.json: measured with numerics version 99 (today: 1)"
    ]
    assert "Not ranked: 4/5 seeds, 1 not run." in " ".join(page["Standing"])


def test_the_commands_measure_a_seed_again_with_the_code_that_measured_it(placed, monkeypatch):
    run = "hebbbench run --protocol digits --rule softhebb --seed 0 --results again --device cpu"
    compare = "hebbbench compare results/digits/softhebb/seed-0.json again/digits/softhebb/seed-0.json"
    assert explained("softhebb")["To measure it again"] == [run, compare]
    monkeypatch.setattr(explain, "code", lambda: Code("f" * 40, False, {}))
    assert explained("softhebb")["To measure it again"] == [
        f"git checkout {COMMIT[:12]}", run, "git checkout -", compare
    ]  # fmt: skip
    known = typer_options("run")
    assert {word for word in shlex.split(run) if word.startswith("--")} <= known


def typer_options(command: str) -> set[str]:
    group = typer.main.get_command(cli.app)
    return {option for parameter in group.commands[command].params for option in parameter.opts}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"dirty": True}, "# measured with uncommitted changes, which are in no commit"),
        ({"commit": None}, "# the commit that measured is unknown"),
    ],
)
def test_code_that_cannot_be_had_again_is_told(tmp_path, changes, line):
    store_all([in_environment(result, **changes) for result in small_results()], tmp_path / "results")
    assert explained("oja")["To measure it again"][0] == line


def test_a_row_without_results_says_how_to_get_them(tmp_path):
    store_all(small_results(), tmp_path / "my runs")
    page = explained("covariance", results="my runs")
    assert page["Standing"] == ["No result of it counts."]
    assert page["To measure it"] == ["hebbbench run --protocol digits --rule covariance --seed all --results 'my runs'"]


def test_an_axis_value_is_asked_for_where_there_are_several_and_taken_where_there_is_one(tmp_path):
    store_all(
        [make_result(WIDTHS, "bp", 0, 0.9, {"width": 64}), *small_results(WIDTHS, width=32)], tmp_path / "results"
    )
    with pytest.raises(
        HebbBenchError, match=r"'bp' stands at 2 .* under 'widths'. Name one: --axis width=32; --axis width=64"
    ):
        explained("bp", protocol="widths")
    page = explained("bp", "width=64", protocol="widths")
    assert page[""] == ["widths width=64 · bp", "bp: what it is."]
    assert "--axis width=64" in page["To measure it again"][0]
    assert "results/widths/bp/width=64/seed-0.json" in page["To measure it again"][1]
    assert explained("oja", protocol="widths")[""][0] == "widths width=32 · oja"
    with pytest.raises(HebbBenchError, match="axis width = '65' is not in protocol 'widths'"):
        explained("bp", "width=65", protocol="widths")


def test_a_rule_that_is_not_on_the_board_is_refused_with_those_that_are(tmp_path):
    store_all(small_results(), tmp_path / "results")
    with pytest.raises(
        HebbBenchError, match=r"no rule on the board of 'digits' named 'ojo'. Did you mean 'oja'\?"
    ) as refused:
        explained("ojo")
    assert "hebbbench run" not in str(refused.value)
    with pytest.raises(HebbBenchError, match="hebbbench run --protocol widths --rule oja --seed all"):
        explained("oja", protocol="widths")
    with pytest.raises(HebbBenchError, match="there is no protocol 'digit'"):
        explained("oja", protocol="digit")


def test_a_row_of_cosines_has_no_tier(tmp_path, registered):
    registered["cosines"] = protocol = make_protocol(
        "cosines", seeds=[0, 1], probe=None, chance=None, headline="alignment.fc1", alignment={}, controls=["bp"]
    )
    store_all([cosine_result(protocol, "bp", seed, 0.5) for seed in (0, 1)], tmp_path / "results")
    page = explained("bp", protocol="cosines")
    assert page["Standing"][0].startswith("0.500 ± 0.000 (2). Hebbian alignment of layer fc1:")
    assert [cells[:3] for cells in cells_of_lines("\n".join(page["Seeds"]))[2:]] == [
        ["0", "ok", "0.500"],
        ["1", "ok", "0.500"],
    ]
