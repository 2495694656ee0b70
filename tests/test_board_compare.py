"""Two rules, or two sets of results, beside each other: every number is what a hand computes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from board_fixtures import (
    DIGITS,
    PROTOCOLS,
    WIDTHS,
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
from hebbbench.board.compare import compare_page
from hebbbench.errors import HebbBenchError
from hebbbench.protocol import Protocol
from hebbbench.record.store import to_text


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Protocol]:
    """The registry's protocols, to which a test may add; the working directory is the test's own."""
    monkeypatch.chdir(tmp_path)
    return register(monkeypatch)


def differences(page: str) -> dict[str, list[str]]:
    """What differs → the other cells."""
    table = page.partition("what differs")[2].splitlines()[2:]
    return {cells[0]: cells[1:] for cells in (re.split(r"  +", line.strip()) for line in table if line)}


def test_the_difference_is_paired_by_seed_with_its_interval_and_p(tmp_path):
    store_all([*small_results(), make_result(DIGITS, "oja", 2, 0.1)], tmp_path / "results")
    page = compare_page("oja", "bp", Path("results"))
    header, _, row = cells_of_lines(page)[3:6]
    assert header == ["protocol", "oja", "bp", "oja − bp [95 %]", "p", "pairs"]
    # differences -0.2 and -0.16: mean -0.18, s/√2 = 0.02, t = -9 with one degree of freedom, p = 1 - 2·atan(9)/π
    assert row == ["digits", "48.00 ± 33.05 (3)", "85.00 ± 7.07 (2)", "-18.00 [-43.41, +7.41]", "0.070", "2"]


def test_the_other_way_round_the_sign_turns(tmp_path):
    store_all(small_results(), tmp_path / "results")
    assert "+18.00 [-7.41, +43.41]" in compare_page("bp", "oja", Path("results"))


def test_a_rule_is_one_that_counts_and_a_folder_is_taken_as_it_is(tmp_path):
    old = [make_result(DIGITS, "oja", seed, 0.2 + 0.1 * seed, numerics_version=99) for seed in (0, 1)]
    store_all(
        [*small_results(), *(make_result(DIGITS, "softhebb", seed, 0.6) for seed in (0, 1))], tmp_path / "results"
    )
    store_all(old, tmp_path / "old")
    page = compare_page("oja", "old/digits/oja", Path("results"))
    assert cells_of_lines(page)[0] == ["oja", "results under results/ that count"]
    assert cells_of_lines(page)[1] == ["B", "old/digits/oja (oja), whether it counts or not"]
    assert "67.00 ± 4.24 (2)" in page
    assert "25.00 ± 7.07 (2)" in page
    assert differences(page) == {"numerics version": ["1", "99"]}
    store_all(old, tmp_path / "results")
    with pytest.raises(
        HebbBenchError, match=r"rule 'oja' has no results under results/ that count.*bp, random, softhebb"
    ):
        compare_page("oja", "bp", Path("results"))


def test_sides_with_several_rules_are_paired_rule_by_rule(tmp_path):
    store_all(small_results(), tmp_path / "results")
    mine = [result for result in small_results() if result.rule.name != "random"]
    mine[0] = mine[0].model_copy(update={"weights": "0" * 64})
    store_all(mine, tmp_path / "runs")
    page = compare_page("results", "runs", Path("results"))
    rows = [cells for cells in cells_of_lines(page) if cells[0] == "digits"]
    assert [row[1] for row in rows] == ["bp", "oja"]
    assert all(row[4] == "+0.00" for row in rows)
    assert "Of 4 cells measured on both sides 3 ended with the same weights, bit by bit." in page
    assert "Nothing else differs" in page


def test_single_files_are_compared(tmp_path):
    store_all(small_results(), tmp_path / "results")
    page = compare_page("results/digits/bp/seed-1.json", "results/digits/oja/seed-1.json", Path("results"))
    assert cells_of_lines(page)[5][1:] == ["80.00 (1)", "64.00 (1)", "+16.00", "–", "1"]


def test_every_place_that_both_have_and_no_other(tmp_path, registered):
    results = [*small_results(WIDTHS, width=32), *small_results(), make_result(WIDTHS, "bp", 0, 0.9, {"width": 64})]
    store_all(results, tmp_path / "results")
    page = compare_page("bp", "oja", Path("results"))
    rows = {cells[0]: cells for cells in cells_of_lines(page) if cells[0] in PROTOCOLS}
    assert rows.keys() == {"digits", "widths"}
    assert rows["widths"][1:3] == ["width=32", "85.00 ± 7.07 (2)"]
    assert "width=64" not in page
    only = compare_page("bp", "oja", Path("results"), ["widths"])
    assert [cells[:2] for cells in cells_of_lines(only) if cells[0] in PROTOCOLS] == [["widths", "width=32"]]
    with pytest.raises(HebbBenchError, match=r"there is no protocol 'width'\. Did you mean 'widths'"):
        compare_page("bp", "oja", Path("results"), ["width"])


def test_a_rule_for_which_an_axis_does_not_vary_stands_at_all_its_values(tmp_path, registered):
    axes = {"width": {"path": "architecture.options.width", "values": [32, 64], "rules": ["softhebb"]}}
    registered["widths"] = protocol = make_protocol("widths", seeds=[0], axes=axes)
    trained = [make_result(protocol, "softhebb", 0, 0.01 * width, {"width": width}) for width in (32, 64)]
    store_all([*trained, make_result(protocol, "random", 0, 0.5, {"width": 32})], tmp_path / "results")
    rows = [
        cells for cells in cells_of_lines(compare_page("softhebb", "random", Path("results"))) if cells[0] == "widths"
    ]
    assert [row[1:5] for row in rows] == [
        ["width=32", "32.00 (1)", "50.00 (1)", "-18.00"], ["width=64", "64.00 (1)", "50.00 (1)", "+14.00"]
    ]  # fmt: skip


def test_what_differs_is_said_once_with_its_places(tmp_path):
    faster = make_result(DIGITS, "oja", 0, 0.7).recipe.model_copy(
        update={"hyperparameters": {"tau": 0.5}, "architecture": {"width": 64}}
    )
    training = faster.training.model_copy(update={"epochs": 9})
    changed = faster.model_copy(update={"training": training}).model_dump(mode="json")
    mine = [
        in_environment(make_result(DIGITS, "oja", seed, 0.7, recipe=changed), commit="f" * 40, dirty=True, threads=1)
        for seed in (0, 1)
    ]
    mine += [
        in_environment(r, commit="f" * 40, dirty=True) for r in small_results(WIDTHS, width=32) if r.rule.name == "oja"
    ]
    store_all([*small_results(), *small_results(WIDTHS, width=32)], tmp_path / "results")
    store_all(mine, tmp_path / "runs")
    page = compare_page("oja", "runs", Path("results"))
    assert differences(page) == {
        "recipe.hyperparameters.tau": ["–", "0.5", "digits"],
        "recipe.training.epochs": ["5", "9", "digits"],
        "commit": ["abc1234", "fffffff with changes", "everywhere"],
        "environment.threads": ["2", "1", "digits"],
    }


def test_other_protocols_under_one_name_are_told_apart(tmp_path):
    other = make_protocol("digits", budget={"epochs": 11}, version=2)
    store_all(small_results(), tmp_path / "results")
    store_all([make_result(other, "oja", seed, 0.7) for seed in (0, 1)], tmp_path / "runs")
    found = differences(compare_page("oja", "runs", Path("results")))
    assert found["protocol version"] == ["1", "2"]
    assert found["protocol hash"] == [DIGITS.hash[:12], other.hash[:12]]


def test_lost_seeds_and_unreadable_files_are_named(tmp_path):
    store_all(small_results(), tmp_path / "results")
    lost = make_result(DIGITS, "fa", 1, None, status="diverged", reason="loss is not finite")
    store_all([make_result(DIGITS, "fa", 0, 0.9), lost], tmp_path / "runs")
    (tmp_path / "runs" / "stray.json").write_text("{")
    page = compare_page("bp", "runs", Path("results"))
    row = next(cells for cells in cells_of_lines(page) if cells[0] == "digits")
    assert row[1:] == ["85.00 ± 7.07 (2)", "90.00 (1)", "+0.00", "–", "1", "B: 1 diverged"]
    assert "left out: runs/stray.json is not valid JSON" in page


def test_cosines_are_compared_as_cosines(tmp_path, registered):
    registered["cosines"] = protocol = make_protocol(
        "cosines", seeds=[0, 1], probe=None, chance=None, headline="alignment.fc1", alignment={}
    )
    cosines = {"bp": (0.5, 0.3), "oja": (-0.1, -0.1)}
    found = [cosine_result(protocol, rule, seed, own[seed]) for rule, own in cosines.items() for seed in (0, 1)]
    store_all(found, tmp_path / "results")
    page = compare_page("bp", "oja", Path("results"))
    # differences 0.6 and 0.4: mean 0.5, s/√2 = 0.1, half the interval 1.271
    assert cells_of_lines(page)[5][1:4] == ["0.400 ± 0.141 (2)", "−0.100 ± 0.000 (2)", "+0.500 [-0.771, +1.771]"]
    assert "%, differences" not in page


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (("bp", "bp"), "'bp' is compared with itself"),
        (("bp", "oka"), r"'oka' is neither a rule with results under results/, nor a .* folder. Did you mean 'oja'"),
        (("bp", "fa"), r"rule 'fa' has no results under results/ that count. Rules that have: bp, oja, random"),
        (("bp", "empty"), "there is no result under empty"),
        (("bp", "elsewhere"), r"no protocol and axis values in common. bp: digits. elsewhere: widths"),
        (("bp", "twice"), r"two results of seed 0 of oja under digits. Name the folder that holds one of them"),
        (("bp", "broken.json"), "broken.json is not valid JSON"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_with_the_alternatives(tmp_path, sides, message):
    store_all(small_results(), tmp_path / "results")
    store_all(small_results(WIDTHS, width=32), tmp_path / "elsewhere")
    for copy in ("a", "b"):
        (tmp_path / "twice" / copy).mkdir(parents=True)
        (tmp_path / "twice" / copy / "seed-0.json").write_text(to_text(make_result(DIGITS, "oja", 0, 0.7)))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(HebbBenchError, match=message) as refused:
        compare_page(*sides, Path("results"))
    assert refused.value.exit_code == 2


# From the command line


@pytest.mark.parametrize(
    "command", [["compare", "bp", "oja"], ["compare", "bp", "oja", "-p", "digits"], ["explain", "digits", "oja"]]
)
def test_the_commands_print_their_page(tmp_path, monkeypatch, capsys, command):
    store_all(small_results(), tmp_path / "results")
    monkeypatch.delenv("HEBBBENCH_RESULTS", raising=False)
    monkeypatch.setattr("sys.argv", ["hebbbench", *command])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code
    assert "digits" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["hebbbench", *command, "--results", "reslts"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert "there is no results folder reslts" in capsys.readouterr().err
