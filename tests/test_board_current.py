"""Which results count. Every one that does not is listed with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from board_fixtures import DATA_DIGEST, DIGITS, RULES, WIDTHS, code, make_result, make_sources, of_its_cell, store_all
from hebbbench.board import render, sift
from hebbbench.board.validate import findings
from hebbbench.plan import KnownArchitecture, KnownRule
from hebbbench.recipe import Recipe
from hebbbench.record.schema import Result
from hebbbench.record.store import to_text
from hebbbench.validation import differences


def good() -> Result:
    return make_result(DIGITS, "oja", 0, 0.9)


def changed(path: str, value: Any) -> Result:
    """The good result with one value replaced at a dotted path (a dot inside a key is written /)."""
    plain = good().model_dump(mode="json")
    *parents, last = (part.replace("/", ".") for part in path.split("."))
    node = plain
    for part in parents:
        node = node[part]
    node[last] = value
    return of_its_cell(plain)


def only_reason(root: Path, **changes: Any) -> str:
    sources = make_sources(root, **changes)
    sifted = sift(sources)
    assert sifted.current == ()
    (ignored,) = sifted.ignored
    board = render(sources)
    assert ignored.reason.replace("<", "&lt;") in board
    assert "1 file under results/ left out" in board
    return ignored.reason


@pytest.mark.parametrize("path", ["seed", "protocol.hash", "rule.source_hash", "data.identity.test", "recipe.training"])
def test_a_file_whose_cell_is_not_of_what_it_says_was_edited(tmp_path: Path, path: str) -> None:
    epochs = {**good().model_dump(mode="json")["recipe"]["training"], "epochs": 7}
    value = {"seed": 1, "recipe.training": epochs}.get(path, "0" * 64)
    store_all([changed(path, value).model_copy(update={"cell": good().cell})], tmp_path)
    said = "has a cell that is not of its protocol, rule, recipe, seed and data; it was edited by hand"
    assert only_reason(tmp_path) == said
    (finding,) = findings(make_sources(tmp_path))
    assert finding.problem == said


def test_recipes_differ_where_their_digests_do() -> None:
    old, new = {"a": {"k": 1, "same": [1]}, "gone": None}, {"a": {"k": 1.0, "same": [1]}, "gone": None, "new": 2}
    assert differences(old, new) == [("a.k", "1", "1.0"), ("new", "null", "2")]
    assert differences(old, old) == []


def test_a_result_of_today_counts(tmp_path: Path) -> None:
    store_all([good()], tmp_path)
    assert sift(make_sources(tmp_path)).current == (good(),)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("protocol.hash", "0" * 64, "measured under another protocol: version 1, hash 000000000000"),
        ("protocol.name", "gone", "there is no protocol 'gone'"),
        ("rule.source_hash", "0" * 64, "measured with other code of rule 'oja': hash 000000000000"),
        ("numerics_version", 99, "measured with numerics version 99"),
        ("recipe.training.epochs", 7, "another recipe (training.epochs: 7, today 5)"),
        ("recipe.hyperparameters", {"k": 2}, "another recipe (hyperparameters.k: 2, today null)"),
        ("seed", 9, "seed 9 is not one of the protocol's seeds"),
        ("axes", {"width": 32}, 'the protocol does not list the axis values {"width":32}'),
        ("metrics.probe/test/accuracy.value", 97.0, "is no test accuracy"),
        ("metrics.probe/test/accuracy.split", "train", "is no test accuracy"),
    ],
)
def test_ignored_with_the_reason(tmp_path: Path, path: str, value: Any, reason: str) -> None:
    store_all([changed(path, value)], tmp_path)
    assert reason in only_reason(tmp_path)


@pytest.mark.parametrize(
    ("measured", "today", "first", "counts"),
    [
        (None, "a", "a", True),
        ("a", "a", "a", True),
        ("b", "b", "a", True),
        ("b", "b", None, True),
        (None, "b", "a", False),
        ("a", "b", "a", False),
        ("a", "b", None, False),
        (None, "b", None, False),
    ],
)
def test_results_of_another_networks_code_do_not_count(
    tmp_path: Path, measured: str | None, today: str, first: str | None, counts: bool
) -> None:
    """Without a fingerprint a result is from before they were recorded, and of the network's first code."""
    name = DIGITS.architecture.name
    network = None if measured is None else {"name": name, "source_hash": measured * 64}
    store_all([changed("architecture", network) if network else good()], tmp_path)
    known = {name: KnownArchitecture(today * 64, first and first * 64)}
    if counts:
        assert len(sift(make_sources(tmp_path, architectures=known)).current) == 1
    else:
        used = (measured or first or "not recorded") * 12
        expected = f"measured with other code of architecture '{name}': hash {used[:12]} (today: {today * 12})"
        assert only_reason(tmp_path, architectures=known) == expected


def test_provenance_alone_does_not_outdate(tmp_path: Path) -> None:
    store_all([changed("recipe.source", "a better citation")], tmp_path)
    assert len(sift(make_sources(tmp_path)).current) == 1


def test_a_recipe_the_protocol_refuses(tmp_path: Path) -> None:
    store_all([good()], tmp_path)
    rules = {**RULES, "oja": KnownRule(code("oja"), {"default": Recipe(provenance="default", batch_size=7)})}
    assert "no longer fits the protocol" in only_reason(tmp_path, rules=rules)


def test_recipes_are_resolved_at_the_axis_values(tmp_path: Path) -> None:
    store_all([make_result(WIDTHS, "bp", 0, 0.9, {"width": width}) for width in (32, 64)], tmp_path)
    assert len(sift(make_sources(tmp_path)).current) == 2


def test_a_rule_from_outside_must_agree_with_itself(tmp_path: Path) -> None:
    one = make_result(DIGITS, "supervised", 0, 0.9)
    other = make_result(
        DIGITS, "supervised", 1, 0.9, rule={"name": "supervised", "source_hash": "0" * 64, "signals": []}
    )
    store_all([one], tmp_path)
    assert len(sift(make_sources(tmp_path)).current) == 1
    store_all([other], tmp_path)
    sifted = sift(make_sources(tmp_path))
    assert [item.reason for item in sifted.ignored] == [
        "the seeds of this rule, which is not in this repository, differ in code or recipe"
    ] * 2


@pytest.mark.parametrize("pinned_is_lone", [True, False])
def test_other_data_is_not_compared(tmp_path: Path, pinned_is_lone: bool) -> None:
    samples = {"train": 1, "validation": 1, "test": 1}
    lone = {"dataset": "digits", "identity": {"test": "0" * 64}, "pinned": pinned_is_lone, "samples": samples}
    most = {"dataset": "digits", "identity": {"test": DATA_DIGEST}, "pinned": False, "samples": samples}
    store_all([make_result(DIGITS, "oja", 0, 0.9, data=lone)], tmp_path)
    store_all([make_result(DIGITS, "bp", seed, 0.9, data=most) for seed in (0, 1)], tmp_path)
    sifted = sift(make_sources(tmp_path))
    assert {result.rule.name for result in sifted.current} == ({"oja"} if pinned_is_lone else {"bp"})
    assert {item.reason for item in sifted.ignored} == {"measured on other data than the rest of the table"}


def test_broken_files_are_listed_without_paths_of_this_machine(tmp_path: Path) -> None:
    folder = tmp_path / "digits" / "oja"
    folder.mkdir(parents=True)
    (folder / "seed-0.json").write_text("{")
    (folder / "seed-1.json").write_text(to_text(good()))
    (folder / "seed-2.json").write_text('{"seed": NaN}')
    (folder / "seed-3.json").write_bytes(b"\xff")
    (folder / "seed-4.json").write_text(to_text(make_result(DIGITS, "oja", 4, 0.9)).replace("\n", " "))
    (folder / "seed-5.json").write_text('{"extra": 1}')
    sources = make_sources(tmp_path)
    sifted = sift(sources)
    assert len(sifted.ignored) == 6
    assert str(tmp_path) not in render(sources)
    reasons = [item.reason for item in sifted.ignored]
    assert reasons[0].startswith("is not valid JSON")
    assert reasons[1] == "holds the cell that belongs at results/digits/oja/seed-0.json"
    assert reasons[4] == "is not in canonical form; it was edited by hand"
    assert "unknown key 'extra'" in reasons[5]


def test_findings_part_problems_from_notes(tmp_path: Path) -> None:
    store_all([good(), make_result(DIGITS, "bp", 0, 0.9, numerics_version=99)], tmp_path)
    broken = tmp_path / "digits" / "bp" / "seed-1.json"
    broken.write_text("[]")
    fine, old = tmp_path / "digits" / "oja" / "seed-0.json", tmp_path / "digits" / "bp" / "seed-0.json"
    sources = make_sources(tmp_path)
    found = findings(sources)
    assert [(f.path, f.problem is None, f.note is None) for f in found] == [
        (old, True, False),
        (broken, False, True),
    ]
    assert findings(sources, [fine]) == []
    assert findings(sources, [broken, fine]) == [found[1]]
    (lost,) = findings(sources, [tmp_path / "digits" / "bp" / "seed-1.txt"])
    assert lost.problem is not None
