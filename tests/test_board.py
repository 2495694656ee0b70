"""The board as a whole: pure, complete, traceable, and honest about what is not there."""

from __future__ import annotations

import json
import random
import re
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from board_fixtures import (
    CARD,
    DIGITS,
    PROTOCOLS,
    RECIPES,
    SEEDS,
    WIDTHS,
    board_results,
    code,
    make_protocol,
    make_result,
    make_sources,
    of_its_cell,
    store_all,
)
from hebbbench import board, registry
from hebbbench.board.rows import Row, Table, tables
from hebbbench.errors import UnknownNameError
from hebbbench.plan import KnownRule, Sources
from hebbbench.recipe import Recipe
from hebbbench.record.card import BADGES, CARD_VERSION, LOCALITY
from hebbbench.record.schema import Metric, Result

ROW = re.compile(r"^\| *(?P<tier>\S+) *\| \[(?P<rule>[\w-]+)\]\((?P<folder>[^)]+)\) *\| (?P<cells>.*) \|$")


@pytest.fixture
def full(tmp_path: Path) -> Sources:
    store_all(board_results(), tmp_path)
    return make_sources(tmp_path)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry holds this module's protocols and rules."""
    monkeypatch.setattr(registry, "protocol_names", lambda: sorted(PROTOCOLS))
    monkeypatch.setattr(registry, "protocol", PROTOCOLS.__getitem__)
    monkeypatch.setattr(registry, "rule_names", lambda: sorted(RECIPES))
    monkeypatch.setattr(registry, "recipes", RECIPES.__getitem__)
    monkeypatch.setattr(registry, "rule_source_hash", code)


def table_of(sources: Sources, protocol: str, width: int | None = None) -> Table:
    axes = {} if width is None else {"width": width}
    found = tables(sources, board.sift(sources))
    return next(table for table in found if table.protocol.name == protocol and table.axes == axes)


def row_of(sources: Sources, rule: str) -> Row:
    row = table_of(sources, "digits").row(rule)
    assert row is not None
    return row


def printed_rows(text: str) -> list[tuple[str, str, str, list[str]]]:
    """(folder, tier, rule, the other cells) of every row of every rule table."""
    matches = [match for line in text.splitlines() if (match := ROW.match(line))]
    return [(m["folder"], m["tier"], m["rule"], [c.strip() for c in m["cells"].split(" | ")]) for m in matches]


def test_order_of_files_does_not_matter(full: Sources) -> None:
    shuffled = list(full.stored)
    random.Random(1).shuffle(shuffled)
    other = Sources(
        protocols=dict(reversed(list(full.protocols.items()))),
        rules=dict(reversed(list(full.rules.items()))),
        stored=tuple(shuffled),
        root=full.root,
    )
    assert board.render(full).encode() == board.render(other).encode()


def test_the_place_of_the_results_does_not_matter(full: Sources, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    store_all(list(reversed(board_results())), elsewhere)
    assert board.render(make_sources(elsewhere)) == board.render(full)


def test_every_accuracy_is_in_the_raw_files(full: Sources) -> None:
    rows = printed_rows(board.render(full))
    assert len(rows) == 7 + 1 + 2
    for folder, _, _, cells in rows:
        raw = [json.loads(path.read_text()) for path in (full.root / folder.removeprefix("results/")).glob("*.json")]
        values = [r["metrics"]["probe.test.accuracy"]["value"] for r in raw if r["status"] == "ok"]
        if not values:
            assert cells[0] == "–"
            continue
        mean = f"{100 * sum(values) / len(values):.2f}"
        sd = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
        assert cells[0] == f"{mean}{sd} ({len(values)})"


def test_every_gap_is_in_the_raw_files(full: Sources) -> None:
    def raw(rule: str) -> dict[int, float]:
        found = [json.loads(path.read_text()) for path in (full.root / "digits" / rule).glob("*.json")]
        return {r["seed"]: r["metrics"]["probe.test.accuracy"]["value"] for r in found if r["status"] == "ok"}

    bp = raw("bp")
    for folder, _, rule, cells in printed_rows(board.render(full)):
        if folder.startswith("results/digits/") and rule != "bp" and cells[0] != "–":
            differences = [value - bp[seed] for seed, value in raw(rule).items()]
            assert float(cells[1].split(" ")[0]) == pytest.approx(100 * statistics.mean(differences), abs=0.0051)


def test_what_one_sample_is_worth_is_said_where_it_can_be_seen(full: Sources) -> None:
    said = "frozen features, on 360 test samples, one of which is 0.28 points. Seeds"
    assert said in board.render(full)
    assert "test samples. Seeds" in (Path(__file__).parents[1] / "LEADERBOARD.md").read_text()  # 10000 of CIFAR-10


def test_every_file_is_in_a_row_or_listed(full: Sources) -> None:
    store_all([make_result(DIGITS, "oja", 0, 0.8, numerics_version=99)], full.root)
    (full.root / "stray.json").write_text("{}")
    sources = make_sources(full.root)
    in_rows = sum(len(row.results) for table in tables(sources, board.sift(sources)) for row in table.rows)
    text = board.render(sources)
    listed = re.findall(r"`([\w-]+\.json)`", text.partition("## Files that do not count")[2])
    assert sorted(listed) == ["seed-0.json", "stray.json"]
    assert in_rows + len(listed) == len(list(full.root.rglob("*.json")))
    counts = [re.search(r"Verification of the results: (\d+) self-reported", part) for part in text.split("\n## ")]
    assert sum(int(match[1]) for match in counts if match) == in_rows


def test_a_result_that_stands_in_several_tables_is_counted_once(tmp_path: Path) -> None:
    axis = {"path": "architecture.options.width", "values": [32, 64], "rules": ["oja"]}
    protocol = make_protocol("some", seeds=[0, 1], axes={"width": axis})
    found = [make_result(protocol, "random", s, 0.8, {"width": 32}) for s in (0, 1)]
    found += [make_result(protocol, "oja", s, 0.9, {"width": width}) for s in (0, 1) for width in (32, 64)]
    store_all(found, tmp_path)
    text = board.render(make_sources(tmp_path, protocols={"some": protocol}))
    assert text.count("[random]") == 2
    assert "Verification of the results: 6 self-reported" in text


def test_a_row_too_wide_to_place_says_between_which_tiers_it_lies(tmp_path: Path) -> None:
    steady = {"bp": 0.97, "softhebb": 0.93, "random": 0.80}
    wide = [0.05, 0.99, 0.10, 0.98, 0.15]
    noise = [0.002, -0.001, 0.001, -0.002, 0.0]
    store_all(
        [
            make_result(DIGITS, rule, s, mean + noise[(s + i) % 5])
            for i, (rule, mean) in enumerate(steady.items())
            for s in SEEDS
        ],
        tmp_path,
    )
    store_all([make_result(DIGITS, "oja", seed, wide[seed]) for seed in SEEDS], tmp_path)
    printed = {rule: tier for _, tier, rule, _ in printed_rows(board.render(make_sources(tmp_path)))}
    assert printed == {"bp": "1", "softhebb": "2", "random": "3", "oja": "1–3"}


def test_trials_are_those_of_todays_recipe_where_the_rule_has_one(full: Sources) -> None:
    def shown(sources: Sources) -> dict[str, str]:
        return {rule: cells[-2] for folder, _, rule, cells in printed_rows(board.render(sources)) if "digits" in folder}

    assert shown(full)["oja"] == "searched, 24 trials"
    widened = RECIPES["oja"]["digits"].model_dump()
    widened["search"]["trials"] = 36
    recipes = {**RECIPES["oja"], "digits": Recipe.model_validate(widened)}
    rules = {**full.rules, "oja": KnownRule(code("oja"), recipes)}
    assert shown(replace(full, rules=rules))["oja"] == "searched, 36 trials"
    assert shown(replace(full, rules={}))["oja"] == "searched, 24 trials"


def test_failed_and_diverged_seeds_are_shown_and_not_ranked(full: Sources) -> None:
    row = row_of(full, "fa")
    assert (row.flaws, row.ranked, row.tier) == (("3/5 seeds", "1 diverged", "1 not run"), False, None)
    assert row_of(full, "covariance").flaws == ("0/5 seeds", "1 failed", "4 not run")
    text = board.render(full)
    assert "- `fa`, seed 3: diverged: loss is not finite." in text
    assert r"- `covariance`, seed 0: failed: out of \| memory." in text
    assert "3/5 seeds, 1 diverged, 1 not run" in text


def test_unranked_rows_stand_below_whatever_their_accuracy(full: Sources) -> None:
    assert [row.rule for row in table_of(full, "digits").rows] == [
        "bp", "softhebb", "random", "oja", "fa", "supervised", "covariance"
    ]  # fmt: skip
    fa, bp = row_of(full, "fa").accuracy, row_of(full, "bp").accuracy
    assert fa is not None
    assert bp is not None
    assert fa.mean > bp.mean


def test_an_over_spent_budget_is_not_ranked(tmp_path: Path) -> None:
    results = [make_result(DIGITS, "supervised", seed, 0.99) for seed in SEEDS]
    plain = [result.model_dump(mode="json") for result in results]
    for one in plain:
        one["recipe"]["training"]["epochs"] = 11
    store_all([of_its_cell(one) for one in plain], tmp_path)
    row = row_of(make_sources(tmp_path), "supervised")
    assert row.flaws == ("over the budget of 10 epochs",)
    assert row.tier is None


def test_standing_against_random(full: Sources) -> None:
    assert row_of(full, "oja").standing == "below random"
    assert row_of(full, "softhebb").standing == ""
    assert row_of(full, "supervised").standing == ""  # one seed: no interval, no claim
    noisy = [make_result(DIGITS, "oja", seed, 0.87 + 0.02 * (-1) ** seed) for seed in SEEDS]
    store_all(noisy, full.root)
    assert row_of(make_sources(full.root), "oja").standing == "no better than random"


@pytest.mark.parametrize(
    ("gain", "standing"), [(0.0, "no better than random"), (-0.05, "no better than random"), (0.05, "")]
)
def test_a_rule_with_the_same_gain_at_every_seed_stands_by_its_sign(tmp_path: Path, gain: float, standing: str) -> None:
    untrained = [make_result(DIGITS, "random", seed, 0.85 + seed / 100) for seed in SEEDS]
    store_all([*untrained, *(make_result(DIGITS, "oja", seed, 0.85 + seed / 100 + gain) for seed in SEEDS)], tmp_path)
    assert row_of(make_sources(tmp_path), "oja").standing == standing
    (tmp_path / "one").mkdir()
    store_all([untrained[0], make_result(DIGITS, "oja", 0, 0.85 + gain)], tmp_path / "one")
    assert row_of(make_sources(tmp_path / "one"), "oja").standing == ""


def test_signals_in_plain_words(full: Sources) -> None:
    words = {row.rule: row.sees for row in table_of(full, "digits").rows}
    assert (words["bp"], words["softhebb"], words["supervised"], words["random"]) == (
        "gradient", "local", "labels", "nothing"
    )  # fmt: skip


def carded(result: Result, **changes: Any) -> Result:
    return result.model_copy(update={"card": CARD.model_copy(update=changes)})


def test_a_card_in_one_result_is_the_plausibility_of_that_code_everywhere(full: Sources) -> None:
    store_all([carded(make_result(WIDTHS, "softhebb", 0, 0.95, {"width": 64}))], full.root)
    sources = make_sources(full.root)
    carrying = {
        (table.protocol.name, row.rule)
        for table in tables(sources, board.sift(sources))
        for row in table.rows
        if row.card is not None
    }
    assert carrying == {("digits", "softhebb"), ("widths", "softhebb")}
    text = board.render(sources).partition("\n## digits")[2]
    lines = {line.split("[", 1)[1].split("]")[0]: line for line in text.splitlines() if "](results/digits/" in line}
    assert "| layer O " in lines["softhebb"]
    assert " local " not in lines["softhebb"]
    assert " local " in lines["oja"]
    assert " gradient " in lines["bp"]


def test_a_board_without_cards_shows_the_signals_alone(full: Sources) -> None:
    header = next(line for line in board.render(full).splitlines() if line.startswith("| tier"))
    assert "signals" in header
    assert "plausibility" not in header


def test_a_card_of_other_code_does_not_count(full: Sources) -> None:
    other = make_result(DIGITS, "oja", 0, 0.8, rule={"name": "oja", "source_hash": code("old"), "signals": ["pre"]})
    store_all([carded(other)], full.root)
    assert row_of(make_sources(full.root), "oja").card is None


def test_where_cards_differ_the_newest_probes_count_then_the_most_results(full: Sources) -> None:
    newer = {"version": CARD_VERSION + 1}
    cards = [newer | {"locality": "unit"}, newer | {"locality": "unit"}, newer, {}, {}]
    results = [carded(make_result(DIGITS, "oja", seed, 0.8), **changes) for seed, changes in enumerate(cards)]
    for order in (results, results[::-1]):
        store_all(order, full.root)
        card = row_of(make_sources(full.root), "oja").card
        assert card is not None
        assert (card.version, card.locality) == (CARD_VERSION + 1, "unit")


def test_every_badge_is_explained_once(full: Sources) -> None:
    legend = board.render(full).partition("## The columns")[2].partition("\n## ")[0]
    words = " ".join(legend.split())
    for badge in BADGES:
        assert words.count(f"**{badge.letter}** {badge.word}:") == 1
    for place in LOCALITY:
        assert words.count(f"*{place}*:") == 1


def test_published_numbers_never_rank(full: Sources) -> None:
    def ranking(sources: Sources) -> list[tuple[object, ...]]:
        found = tables(sources, board.sift(sources))
        return [(row.rule, row.tier, row.accuracy, row.gap) for table in found for row in table.rows]

    without = {name: protocol.model_copy(update={"published": []}) for name, protocol in PROTOCOLS.items()}
    assert ranking(make_sources(full.root, protocols=without)) == ranking(full)
    assert "published %" not in board.render(make_sources(full.root, protocols=without)).partition("\n## digits")[2]


def test_published_numbers_stand_at_their_axis_values(full: Sources) -> None:
    narrow, wide = (table_of(full, "widths", width).row("softhebb") for width in (32, 64))
    assert narrow is not None
    assert wide is not None
    assert narrow.published == ()
    assert [entry.value for entry in wide.published] == [0.97]
    assert "- `softhebb` at width = 64: 97.00 % (test accuracy), Roe 2024." in board.render(full)


def test_missing_controls_and_cells_are_named(full: Sources) -> None:
    text = board.render(full)
    assert "- `bp` has no accuracy at width = 32: the gap to it cannot be given." in text
    assert "hebbbench run --protocol widths --rule bp --axis width=32 --seed 0-1 --results results\n" in text
    assert "hebbbench run --protocol digits --rule path/to/supervised.py --seed 1-4 --results results\n" in text
    assert "9 of 35 planned runs missing" in text


def test_one_seed_claims_nothing(tmp_path: Path) -> None:
    protocol = make_protocol("digits", seeds=[0])
    store_all([make_result(protocol, "bp", 0, 0.97), make_result(protocol, "random", 0, 0.1)], tmp_path)
    sources = make_sources(tmp_path, protocols={"digits": protocol})
    text = board.render(sources)
    assert [(tier, rule, cells[:2]) for _, tier, rule, cells in printed_rows(text)] == [
        ("–", "bp", ["97.00 (1)", "–"]),
        ("–", "random", ["10.00 (1)", "-87.00"]),
    ]
    assert "One seed gives no tiers and no intervals." in text


def test_a_constant_difference_is_marked(tmp_path: Path) -> None:
    store_all([make_result(WIDTHS, "bp", seed, 0.97 - 0.01 * seed, {"width": 32}) for seed in (0, 1)], tmp_path)
    store_all([make_result(WIDTHS, "random", seed, 0.47 - 0.01 * seed, {"width": 32}) for seed in (0, 1)], tmp_path)
    text = board.render(make_sources(tmp_path))
    assert [(tier, rule, cells[1]) for _, tier, rule, cells in printed_rows(text)] == [
        ("1", "bp", "–"),
        (r"1\*", "random", "-50.00"),
    ]
    assert "by the same amount at every seed" in text


def test_a_rule_for_which_an_axis_does_not_vary_stands_in_the_tables_of_all_its_values(tmp_path: Path) -> None:
    path = "architecture.options.width"
    axes = {"width": {"path": path, "values": [32, 64], "rules": ["softhebb"]}}
    protocol = make_protocol("widths", seeds=[0], axes=axes)
    trained = [make_result(protocol, "softhebb", 0, 0.9, {"width": width}) for width in (32, 64)]
    store_all([*trained, make_result(protocol, "random", 0, 0.5, {"width": 32})], tmp_path)
    sources = make_sources(tmp_path, protocols={"widths": protocol})
    for width in (32, 64):
        table = table_of(sources, "widths", width)
        assert [(row.rule, row.axes["width"]) for row in table.rows] == [("softhebb", width), ("random", 32)]
    text = board.render(sources)
    assert text.count("(results/widths/random/width=32/)") == 2
    assert "--rule random" not in text  # nothing of it is missing


def test_several_machines_and_commits_are_named(tmp_path: Path) -> None:
    base = make_result(DIGITS, "bp", 0, 0.9)
    device = base.environment.model_copy(update={"device_name": "Big GPU", "commit": "f" * 40, "dirty": True})
    store_all([base, make_result(DIGITS, "oja", 0, 0.9, environment=device.model_dump(mode="json"))], tmp_path)
    assert (
        "Measured at commits `abc1234`, `fffffff with changes`, "
        "on Big GPU (oja); Example CPU (bp). "
        "Times and memory compare only on one device."
    ) in board.render(make_sources(tmp_path))


def test_tables_are_well_formed(full: Sources) -> None:
    block: list[int] = []
    for line in [*board.render(full).splitlines(), ""]:
        if line.startswith("|"):
            block.append(len(re.findall(r"(?<!\\)\|", line)))
        else:
            assert len(set(block)) <= 1
            block = []


def test_top_five_stands_in_a_column_of_its_own_where_it_was_measured(tmp_path: Path) -> None:
    def with_top5(result: Result) -> Result:
        found = {"probe.test.top5_accuracy": Metric(value=0.9876, split="test", epoch=5)}
        return result.model_copy(update={"metrics": result.metrics | found})

    store_all([with_top5(r) if r.rule.name == "bp" and r.status == "ok" else r for r in board_results()], tmp_path)
    text = board.render(make_sources(tmp_path))
    assert " top-5 % " in text
    assert "98.76" in text


def test_an_empty_board(tmp_path: Path) -> None:
    text = board.render(make_sources(tmp_path))
    assert text.count("No results yet.") == 1
    assert text.count("No results yet, at width ") == 1
    assert len(re.findall(r"2 tables \| +10 \| –", text)) == 1
    assert "--axis" not in text
    assert "Controls missing" not in text
    assert "Files that do not count" not in text


@pytest.mark.usefixtures("registered")
def test_write_then_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    results, path = Path("results"), Path("LEADERBOARD.md")
    store_all(board_results(), results)
    assert "does not exist" in (board.check(results, path) or "")
    assert board.write(results, path) == [path]
    assert path.read_text() == board.build(results) == board.render(make_sources(results))
    assert board.check(results, path) is None


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("edit", [("97.33", "97.34"), ("\n", "\r\n"), ("## The columns\n", "")])
def test_check_finds_an_edit(tmp_path: Path, edit: tuple[str, str]) -> None:
    results, path = tmp_path / "results", tmp_path / "LEADERBOARD.md"
    store_all(board_results(), results)
    text = board.render(make_sources(results))
    assert edit[0] in text
    path.write_bytes(text.replace(*edit).encode())
    message = board.check(results, path)
    assert message is not None
    assert "hebbbench leaderboard" in message
    assert len(message.splitlines()) < 50
    if edit[0] == "97.33":
        assert "-| " in message
        assert "97.34" in message


@pytest.mark.usefixtures("registered")
def test_top_rows(tmp_path: Path) -> None:
    store_all(board_results(), tmp_path)
    assert [row.rule for row in board.top_rows(tmp_path, "digits", 2)] == ["bp", "softhebb"]
    assert [row.rule for row in board.top_rows(tmp_path, "widths", 1)] == ["softhebb", "bp"]
    with pytest.raises(UnknownNameError, match="digits"):
        board.top_rows(tmp_path, "digit", 2)


def test_a_new_repository_has_a_board(tmp_path: Path) -> None:
    text = board.build(tmp_path / "no-such-folder")
    assert text.startswith("# HebbBench leaderboard\n")


def test_the_board_needs_no_torch() -> None:
    program = """
import importlib
import pkgutil
import sys
from pathlib import Path
import hebbbench.board
for module in pkgutil.iter_modules(hebbbench.board.__path__):
    importlib.import_module(f"hebbbench.board.{module.name}")
hebbbench.board.build(Path("no-such-folder"))
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_work_of_a_step_stands_in_forward_passes(full: Sources) -> None:
    def counted(seed: int, step: int) -> Result:
        work = {"forward_flops": 100, "step_flops": step}
        rates = {"achieved_flops_per_second": None, "ceiling_flops_per_second": None}
        return make_result(DIGITS, "oja", seed, 0.8, work={**work, **rates})

    assert "passes" not in next(line for line in board.render(full).splitlines() if line.startswith("| tier"))
    store_all([counted(0, 190), counted(1, 190), counted(2, 500)], full.root)
    sources = make_sources(full.root)
    assert row_of(sources, "oja").passes == 1.9
    assert row_of(sources, "softhebb").passes is None
    assert re.search(r"^\|.*\[oja\].*\| +1\.9 \|", board.render(sources), flags=re.MULTILINE)
