"""The forms of the board: where each may be written, and that all of them say the same."""

from __future__ import annotations

import csv
import io
import json
import random
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from board_fixtures import (
    DIGITS,
    PROTOCOLS,
    RULES,
    SEEDS,
    board_results,
    code,
    full_sources,
    make_protocol,
    make_result,
    make_sources,
    markdown_rows,
    register,
    small_results,
    store_all,
)
from conftest import command_line
from hebbbench import board, registry
from hebbbench.board.export import FIELDS
from hebbbench.board.output import ENDINGS, rendered, seen_from
from hebbbench.board.terminal import screen
from hebbbench.plan import KnownRule, Sources

PUBLIC, README = "LEADERBOARD.md", "README.md"
MARKED = "above\n<!-- board:begin -->\nold\n<!-- board:end -->\nbelow\n"


@pytest.fixture
def full(tmp_path: Path) -> Sources:
    return full_sources(tmp_path / "results")


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """call(arguments) → (exit status, standard output, standard error), in a folder with this module's registry."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEBBBENCH_RESULTS", raising=False)
    register(monkeypatch)
    return partial(command_line(monkeypatch, capsys), "leaderboard")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the public record, its board and its README, and beside it results of one's own."""
    store_all(board_results(), tmp_path / "results")
    store_all(small_results(), tmp_path / "runs")
    (tmp_path / PUBLIC).write_text("the public board")
    (tmp_path / README).write_text(MARKED)
    return tmp_path


# Where a board may be written


def test_the_public_board_and_the_readme_are_written_from_the_public_record_and_both_are_named(checkout, call):
    code, out, _ = call()
    assert (code, out) == (0, f"{PUBLIC} written from results/.\n{README} written from results/.\n")
    assert (checkout / PUBLIC).read_text().startswith("# HebbBench leaderboard")
    assert "old" not in (checkout / README).read_text()
    assert call("--check")[0] == 0


def test_other_results_are_printed_and_touch_nothing(checkout, call):
    code, out, err = call("--results", "runs")
    assert (code, err) == (0, "")
    assert out == board.build(Path("runs"))
    assert (checkout / PUBLIC).read_text() == "the public board"
    assert (checkout / README).read_text() == MARKED


def test_other_results_go_where_they_are_told_and_nowhere_else(checkout, call):
    code, out, _ = call("--results", "runs", "--output", PUBLIC)
    assert (code, out) == (0, f"{PUBLIC} written from runs/.\n")
    assert (checkout / README).read_text() == MARKED


def test_a_check_of_other_results_advises_nothing_that_destroys_the_board(checkout, call):
    for named in ([], ["--output", PUBLIC]):
        code, out, err = call("--results", "runs", "--check", *named)
        assert (code, out) == (2, "")
        assert f"{PUBLIC} shows the results in results, not those in runs" in err
        assert "--output" in err
        assert "hebbbench leaderboard" not in err
    code, _, err = call("--results", "runs", "--check", "--output", "mine.md")
    assert code == 1
    assert "hebbbench leaderboard --results runs --output mine.md" in err
    assert call("--results", "runs", "--output", "mine.md")[0] == 0
    assert call("--results", "runs", "--check", "--output", "mine.md")[0] == 0


def test_a_part_goes_into_a_file_of_its_own_and_never_into_the_public_board(checkout, call):
    for named in ([], ["--output", PUBLIC], ["--check"]):
        code, _, err = call("--protocol", "digits", *named)
        assert code == 2
        assert f"{PUBLIC} holds all of it" in err
        assert "--output -" in err
    assert call("--protocol", "digits", "--output", "part.md")[0] == 0
    assert re.findall("^## (.*)$", (checkout / "part.md").read_text(), flags=re.MULTILINE) == ["The columns", "digits"]
    assert call("--protocol", "digits", "--output", "part.md", "--check")[0] == 0
    assert call("--output", "part.md", "--check")[0] == 1
    assert (checkout / PUBLIC).read_text() == "the public board"


@pytest.mark.parametrize("name", ["board.txt", "board", "board.markdown", ".csv"])
def test_another_ending_is_refused_by_name(checkout, call, name):
    code, _, err = call("--output", name)
    assert code == 2
    assert name in err
    assert all(ending in err for ending in ENDINGS)
    assert not (checkout / name).exists()


@pytest.mark.parametrize("ending", [*ENDINGS, ".CSV"])
def test_the_ending_decides_the_form_and_can_be_checked(checkout, call, ending):
    name = f"board{ending}"
    assert call("--output", name)[:2] == (0, f"{name} written from results/.\n")
    begins = {".md": "# HebbBench", ".csv": "protocol,version", ".json": "{\n", ".html": "<!doctype html>"}
    assert (checkout / name).read_text().startswith(begins[ending.lower()])
    assert call("--output", name, "--check")[0] == 0
    (checkout / name).write_text((checkout / name).read_text().replace("bp", "pb"))
    assert call("--output", name, "--check")[0] == 1


# Paths


def test_every_path_is_that_of_the_results_that_were_looked_at(checkout, call):
    (checkout / "runs" / "digits" / "bp" / "seed-1.json").write_text("[]")
    text = call("--results", "runs", "--output", "-")[1]
    assert "[bp](runs/digits/bp/)" in text
    assert "under [runs/](runs/)" in text
    assert "--rule bp --seed 1-4 --results runs\n" in text
    assert "1 file under runs/ left out" in text
    assert "- `runs/digits/bp/` `seed-1.json`" in text
    assert "results/" not in text
    call("--results", "runs", "--output", "pages/board.md")
    assert "[bp](../runs/digits/bp/)" in (checkout / "pages" / "board.md").read_text()


def test_a_result_that_lies_in_the_wrong_place_is_sent_to_its_place_in_this_folder(checkout, call):
    wrong = checkout / "runs" / "digits" / "oja"
    (wrong / "seed-4.json").write_text((wrong / "seed-0.json").read_text())
    text = call("--results", "runs", "--output", "-")[1]
    assert "holds the cell that belongs at runs/digits/oja/seed-0.json" in text
    (finding,) = board.validate_results(Path("runs"))
    assert finding.problem == "holds the cell that belongs at runs/digits/oja/seed-0.json"


@pytest.mark.parametrize(
    ("results", "folder", "path"),
    [
        ("/a/b/runs", "/a/b", "runs"),
        ("/a/b/runs", "/a/b/docs", "../runs"),
        ("/a/b/runs", "/a/b/runs", "."),
        ("/a/runs", "/b", "/a/runs"),
    ],
)
def test_a_page_names_the_results_as_seen_from_where_it_lies(results, folder, path):
    assert seen_from(Path(results), Path(folder)) == path


# All forms say the same


def csv_rows(text: str) -> dict[tuple[str, str, str], dict[str, str]]:
    return {
        (row["protocol"], row["axes"].replace("=", " = "), row["rule"]): row
        for row in csv.DictReader(io.StringIO(text))
    }


def percent(value: str, sd: str, n: str) -> str:
    if not value:
        return "–"
    return f"{100 * float(value):.2f}" + (f" ± {100 * float(sd):.2f}" if sd else "") + f" ({n})"


def points(mean: str, low: str, high: str) -> str:
    if not mean:
        return "–"
    return f"{100 * float(mean):+.2f}" + (f" [{100 * float(low):+.2f}, {100 * float(high):+.2f}]" if low else "")


def test_the_numbers_of_the_csv_file_are_those_of_the_page(full):
    whole = board.collect(full)
    page, table = markdown_rows(rendered(whole)), csv_rows(rendered(whole, ".csv"))
    assert len(page) == 7 + 1 + 2
    assert {place for place in table if place[0] != "cosines"} == page.keys()
    for place, shown in page.items():
        row = table[place]
        tiers = "–" if not row["tier"] else row["tier"]
        tiers += f"–{row['tier_last']}" if row["tier_last"] != row["tier"] else ""
        assert shown["tier"].removesuffix(r"\*") == tiers
        assert shown["accuracy %"] == percent(row["mean"], row["sd"], row["n"])
        assert shown["gap to bp, points"] == points(row["gap_to_bp"], row["gap_to_bp_low"], row["gap_to_bp_high"])
        assert row["probe"] == row["mean"]
        if "end-to-end %" in shown:
            end_to_end = percent(row["end_to_end"], row["end_to_end_sd"], "")
            assert shown["end-to-end %"].partition(" (")[0] == end_to_end.removesuffix(" ()")
        assert shown["epochs"] == row["epochs"]
        assert shown["train s"] == (f"{float(row['train_seconds']):.1f}" if row["train_seconds"] else "–")
        memory = row["peak_memory_bytes"]
        assert shown["memory MiB"] == (f"{int(memory) / 2**20:.0f}" if memory else "–")
        trials = f", {row['trials']} trials" if row["trials"] else ""
        assert shown["recipe"] == f"{row['provenance']}{trials}"
        assert shown.get("notes", "–") == (row["notes"].replace("; ", ", ") or "–")
        assert shown["rule"].endswith(f"({row['folder']})")
        assert (row["ranked"] == "true") == (shown["tier"] != "–")
        protocol = full.protocols[place[0]]
        assert (row["version"], row["hash"], row["metric"]) == ("1", protocol.hash, "probe.test.accuracy")
    assert (table["digits", "", "oja"]["locality"], table["digits", "", "oja"]["badges"]) == ("layer", "O")


def test_the_json_file_says_what_the_csv_file_says_and_has_the_seeds_of_the_raw_files(full):
    whole = board.collect(full)
    table, plain = csv_rows(rendered(whole, ".csv")), json.loads(rendered(whole, ".json"))
    seen = set()
    for protocol in plain["protocols"]:
        for part in protocol["tables"]:
            for row in part["rows"]:
                axes = "; ".join(f"{name} = {value}" for name, value in part["axes"].items())
                line = table[protocol["name"], axes, row["rule"]]
                seen.add((protocol["name"], axes, row["rule"]))
                for name, number in (row["headline"] or {}).items():
                    assert line[name] == ("" if number is None else str(number))
                for name in ("gap_to_bp", "gap_to_random"):
                    gap = row.get(name) or {"mean": None, "low": None, "high": None}
                    assert [line[name], line[f"{name}_low"], line[f"{name}_high"]] == [
                        "" if gap[key] is None else str(gap[key]) for key in ("mean", "low", "high")
                    ]
                folder = full.root / row["folder"].removeprefix("results/")
                raw = [json.loads(path.read_text()) for path in sorted(folder.glob("seed-*.json"))]
                metrics = [result["metrics"].get(protocol["metric"], {"value": None}) for result in raw]
                assert [(seed["seed"], seed["status"], seed["reason"], seed["value"]) for seed in row["seeds"]] == [
                    (result["seed"], result["status"], result["reason"], metric["value"])
                    for result, metric in zip(raw, metrics, strict=True)
                ]
    assert seen == table.keys()
    digits = next(protocol for protocol in plain["protocols"] if protocol["name"] == "digits")
    assert digits["runs"] == {"planned": 35, "done": 24, "failed": 2, "missing": 9}
    assert [entry["value"] for entry in digits["published"]] == [0.965, 0.999]
    assert [item["file"] for item in plain["ignored"]] == ["results/stray.json"]


def test_the_csv_file_has_the_numbers_that_a_hand_computes(tmp_path):
    protocol = make_protocol("digits", seeds=[0, 1])
    store_all(small_results(protocol), tmp_path)
    table = csv_rows(rendered(board.collect(make_sources(tmp_path, protocols={"digits": protocol})), ".csv"))
    row = table["digits", "", "oja"]
    assert tuple(row) == FIELDS
    # 0.70 and 0.64 beside 0.9 and 0.8, and 0.5 and 0.5; Student's t at 97.5 % with one degree of freedom is 12.7062
    assert (row["n"], row["mean"], row["sd"]) == ("2", "0.67", "0.0424264069")
    assert (row["gap_to_bp"], row["gap_to_bp_low"], row["gap_to_bp_high"]) == ("-0.18", "-0.4341240947", "0.0741240947")
    assert (row["gap_to_random"], row["gap_to_random_low"], row["gap_to_random_high"]) == (
        "0.17", "-0.2111861421", "0.5511861421"
    )  # fmt: skip
    assert (row["epochs"], row["train_seconds"], row["probe_seconds"], row["peak_memory_bytes"]) == (
        "5", "1.75", "0.5", "157286400"
    )  # fmt: skip
    assert (row["provenance"], row["trials"], row["folder"]) == ("searched", "24", "results/digits/oja/")


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_order_of_files_does_not_change_a_byte(full, ending):
    shuffled = list(full.stored)
    random.Random(1).shuffle(shuffled)
    backwards = {name: full.protocols[name] for name in reversed(full.protocols)}
    other = Sources(backwards, dict(reversed(list(full.rules.items()))), tuple(shuffled), full.root)
    assert rendered(board.collect(other), ending) == rendered(board.collect(full), ending)


def test_cosines_stand_in_every_form(full):
    whole = board.collect(full)
    rows = [row for row in csv.DictReader(io.StringIO(rendered(whole, ".csv"))) if row["protocol"] == "cosines"]
    assert [(row["axes"], row["metric"], row["n"], row["mean"], row["tier"], row["notes"]) for row in rows] == [
        ("decay=0.0", "alignment.fc1", "2", "0.375", "", ""),
        ("decay=0.1", "alignment.fc1", "0", "", "", "collapsed (1)"),
    ]
    for text in (rendered(whole), rendered(whole, ".html"), screen(whole)):
        assert text.count("0.375 ± 0.177 (2)") == 1
        assert text.count("collapsed (1)") == 1
        assert text.count("−0.25") == 1
    assert "oja, published" in screen(whole)


# On a terminal


def test_a_terminal_gets_short_tables_and_a_pipe_the_page(checkout, call, monkeypatch):
    page = call("--output", "-")[1]
    assert page == board.build(Path("results"))
    for arguments in (["--output", "-"], ["--results", "runs"]):
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        out = call(*arguments)[1]
        assert "tier    rule" in out
        assert "The columns" not in out
        assert "<details>" not in out
        assert max(map(len, out.splitlines())) <= 120


def test_the_terminal_shows_the_rows_with_half_their_intervals_and_what_is_missing(tmp_path):
    store_all(small_results(), tmp_path)
    text = screen(board.collect(make_sources(tmp_path), "my runs"))
    rows = {cells[1]: cells for line in text.splitlines() if len(cells := re.split(r"  +", line)) > 4}
    # half of the 95 % interval: 12.7062 · s/√2 of the differences, in points
    assert rows["oja"][2:5] == ["67.00 ± 4.24 (2)", "-18.00 ± 25.41", "+17.00 ± 38.12"]
    assert rows["bp"][2:5] == ["85.00 ± 7.07 (2)", "–", "+35.00 ± 63.53"]
    assert rows["random"][2:5] == ["50.00 ± 0.00 (2)", "-35.00 ± 63.53", "–"]
    assert rows["oja"][5].startswith("2/5 seeds, 3 not run")
    assert "19 of 25 planned runs missing" in text
    assert "widths" not in text


def test_a_terminal_is_told_which_folder_and_which_command(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "protocol_names", lambda: sorted(PROTOCOLS))
    store_all([*small_results(), make_result(DIGITS, "fa", 0, 0.9, numerics_version=99)], tmp_path)
    text = screen(board.collect(make_sources(tmp_path), "my runs"))
    assert "hebbbench run --missing --protocol digits --results 'my runs'" in text
    assert "1 file under my runs/ left out: hebbbench validate --results 'my runs'" in text
    empty = screen(board.collect(make_sources(tmp_path / "none"), "runs"))
    assert empty == "No result under runs/ counts for these protocols.\n"


def test_a_rule_from_elsewhere_and_an_untested_tier_are_marked(tmp_path):
    store_all([make_result(DIGITS, "mine", seed, 0.5) for seed in SEEDS], tmp_path)
    store_all([make_result(DIGITS, "bp", seed, 0.6) for seed in SEEDS], tmp_path)
    sources = make_sources(tmp_path, rules={name: KnownRule(code(name), {}) for name in RULES})
    text = screen(board.collect(sources))
    assert re.search(r"^1\* +mine .*rule not in repository", text, flags=re.MULTILINE)
