"""A result on disk: one canonical text, whole or absent, in the one place where it belongs."""

from __future__ import annotations

import json
import math
import os
import random
from pathlib import Path

import pytest
from pydantic import ValidationError

from board_fixtures import CARD, DIGITS, WIDTHS, make_result
from hebbbench import files
from hebbbench.errors import ResultError
from hebbbench.record import store
from hebbbench.record.card import BADGES, badges, letters
from hebbbench.record.schema import Metric, Result
from hebbbench.schemas import schema_text
from hebbbench.validation import canonical_json, digest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def result() -> Result:
    return make_result(DIGITS, "softhebb", 2, 0.1 + 0.2)


def plain(result: Result, **changes: object) -> dict:
    return {**json.loads(store.to_text(result)), **changes}


# The text


def test_the_text_comes_back_as_the_same_result_and_the_same_text(result, tmp_path):
    path = store.save(result, tmp_path)
    loaded = store.load(path)
    assert loaded == result
    assert store.to_text(loaded) == path.read_text() == store.to_text(result)
    assert loaded.metrics["probe.test.accuracy"].value == 0.1 + 0.2


def test_the_text_is_sorted_indented_and_ends_with_one_newline(result):
    text = store.to_text(result)
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=2, ensure_ascii=False) + "\n"
    assert text.isascii() or "\\u" not in text


def test_the_order_in_which_a_result_was_put_together_does_not_show(result):
    shuffled = list(plain(result).items())
    random.Random(0).shuffle(shuffled)
    assert store.to_text(Result.model_validate(dict(shuffled))) == store.to_text(result)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused_everywhere(result, value):
    with pytest.raises(ValidationError, match="finite"):
        Metric(value=value, split="test", epoch=1)
    with pytest.raises(ValidationError, match="finite"):
        Result.model_validate(plain(result, curves={"train.loss": [[1.0, value]]}))
    with pytest.raises(ValidationError, match="finite"):
        Result.model_validate(plain(result, cost={**plain(result)["cost"], "wall_seconds": value}))
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": [value]})


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_a_file_with_what_is_no_number_is_no_json(result, tmp_path, text):
    path = store.save(result, tmp_path)
    path.write_text(path.read_text().replace("0.30000000000000004", text))
    with pytest.raises(ResultError, match=rf"not valid JSON: {text} is not a number"):
        store.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sead": 1}, r"unknown key 'sead'.*Did you mean 'seed'"),
        ({"cost": {"wall": 1}}, r"unknown key 'wall' in 'cost'"),
        ({"seed": "1"}, "seed = '1'"),
        ({"seed": 1.5}, r"seed = 1\.5"),
        ({"seed": True}, "seed = True"),
        ({"seed": -1}, "seed = -1"),
        ({"status": "great"}, "status = 'great'"),
        ({"schema_version": 2}, "schema_version = 2"),
        ({"cell": "abc"}, "cell = 'abc'"),
        ({"status": "failed"}, "status 'ok' has no reason, every other status has one"),
        ({"reason": "why"}, "status 'ok' has no reason"),
        ({"metrics": {"x": {"value": None, "split": "test", "epoch": 1}}}, "a value or the reason"),
        ({"metrics": {"x": {"value": 1.0, "split": "exam", "epoch": 1}}}, "metrics.x.split = 'exam'"),
        ({"curves": {"x": [[1.0]]}}, "curves"),
    ],
)
def test_what_does_not_fit_the_schema_is_refused_by_its_key(result, tmp_path, changes, message):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(plain(result, **changes)))
    with pytest.raises(ResultError, match=message) as caught:
        store.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_key_is_named(result, tmp_path):
    incomplete = plain(result)
    del incomplete["weights"]
    path = tmp_path / "result.json"
    path.write_text(json.dumps(incomplete))
    with pytest.raises(ResultError, match="the key 'weights' is missing"):
        store.load(path)


def test_a_result_cannot_be_changed_after_it_was_measured(result):
    with pytest.raises(ValidationError, match="frozen"):
        result.seed = 7


def test_the_measurement_leaves_out_when_and_where(result):
    later = make_result(DIGITS, "softhebb", 2, 0.1 + 0.2, started="2027-01-01T00:00:00Z")
    assert later != result
    assert later.measurement() == result.measurement()
    assert set(result.measurement()) == {"cell", "status", "metrics", "curves", "weights"}


GLOBAL = CARD.model_copy(
    update={"locality": "global", "uses_labels": True, "needs_backward_pass": True, "update_locked": True}
)


def test_a_card_is_kept_and_is_no_part_of_the_measurement(result, tmp_path):
    carded = result.model_copy(update={"card": CARD})
    loaded = store.load(store.save(carded, tmp_path))
    assert loaded == carded
    assert loaded.card == CARD
    assert carded.measurement() == result.measurement()


def test_a_result_without_a_card_says_nothing_of_it(result, tmp_path):
    assert result.card is None
    assert '"card"' not in store.to_text(result)
    path = store.save(result, tmp_path)
    path.write_text(path.read_text().replace('"cell"', '"card": null,\n  "cell"'))
    (item,) = store.scan(tmp_path)
    assert "not in canonical form" in (item.problem or "")


def test_the_badges_of_a_card_in_words_and_in_letters():
    assert badges(GLOBAL) == ["global", "labels", "backward pass", "update-locked", "online"]
    assert (letters(GLOBAL), letters(GLOBAL, "·")) == ("LBUO", "LB··UO")
    still = GLOBAL.model_copy(update={"learns": False})
    assert badges(still) == ["no learning", "labels", "backward pass", "update-locked"]
    assert len({badge.letter for badge in BADGES}) == len(BADGES)


def test_a_digest_depends_on_the_content_not_on_the_order_of_keys():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5}) != digest({"a": "1"})
    assert canonical_json({"b": 0.1, "a": "τ"}) == '{"a":"τ","b":0.1}'


# The place


def test_a_result_lies_under_protocol_rule_axes_and_seed():
    place = store.result_path(Path("results"), "widths", "bp", {"width": 64, "decay": 0.1}, 3)
    assert place == Path("results/widths/bp/decay=0.1,width=64/seed-3.json")
    assert store.result_path(Path("r"), "digits", "bp", {}, 0) == Path("r/digits/bp/seed-0.json")


def test_every_file_is_found_and_what_is_wrong_with_it_said(result, tmp_path):
    good = store.save(result, tmp_path)
    wide = store.save(make_result(WIDTHS, "bp", 0, 0.9, {"width": 64}), tmp_path)
    folder = good.parent
    misplaced = folder / "seed-3.json"
    misplaced.write_text(good.read_text())
    edited = store.save(make_result(DIGITS, "softhebb", 4, 0.5), tmp_path)
    edited.write_text(json.dumps(json.loads(edited.read_text())))
    line = store.save(make_result(DIGITS, "softhebb", 3, 0.5), tmp_path)
    line.write_text(line.read_text().removesuffix("\n"))
    cut = folder / "seed-5.json"
    cut.write_text(good.read_text()[:200])
    other = folder / "seed-6.json"
    other.write_text("[1, 2]")
    binary = folder / "seed-7.json"
    binary.write_bytes(b"\xff\xfe\x00")
    (folder / "notes.txt").write_text("no result, and not called one")
    (folder / ".seed-8.json.abc.tmp").write_text("left by a kill")

    found = {item.path: item for item in store.scan(tmp_path)}
    assert set(found) == {good, wide, misplaced, edited, line, cut, other, binary}
    assert [path for path, item in found.items() if item.problem is None] == [good, wide]
    assert found[good].result == result
    for path, words in {
        misplaced: f"holds the cell that belongs at {good}",
        edited: "not in canonical form; it was edited by hand",
        line: "not in canonical form; it was edited by hand",
        cut: "not valid JSON",
        other: "must hold an object, not list",
        binary: "not valid JSON",
    }.items():
        assert words in found[path].problem
        assert str(path) in found[path].problem
        assert found[path].result is None
    assert list(found) == sorted(found)


def test_an_empty_or_missing_folder_holds_nothing(tmp_path):
    assert list(store.scan(tmp_path)) == []
    assert list(store.scan(tmp_path / "missing")) == []


# Writing whole or not at all


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_a_crash_while_writing_leaves_the_old_file_and_no_other(result, tmp_path, monkeypatch, call):
    path = store.save(result, tmp_path)
    before = path.read_bytes()

    def crash(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, call, crash)
        with pytest.raises(KeyboardInterrupt):
            files.write_atomic(path, b"new")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "fdopen", "replace"])
def test_a_full_disk_is_an_error_with_a_remedy_and_leaves_nothing_behind(result, tmp_path, monkeypatch, call):
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(ResultError, match=r"seed-2\.json cannot be written: No space left on device\. .*--results"):
            store.save(result, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_new_file_replaces_the_old_one_whole(result, tmp_path):
    path = store.save(result, tmp_path)
    files.write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_below_a_file_cannot_be_written(result, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultError, match=r"results folder .* cannot be written"):
        files.check_writable(tmp_path / "file" / "results")
    with pytest.raises(ResultError, match="cannot be written"):
        store.save(result, tmp_path / "file" / "results")


def test_the_check_of_a_folder_makes_it_and_leaves_no_trace(tmp_path):
    files.check_writable(tmp_path / "new" / "results")
    assert list((tmp_path / "new" / "results").iterdir()) == []


# Schemas for editors


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("protocol", "protocols/protocol.schema.json"),
        ("recipes", "rules/recipes.schema.json"),
        ("result", "docs/result.schema.json"),
    ],
)
def test_a_schema_file_is_what_the_code_generates(kind, place):
    assert (REPOSITORY / place).read_text(encoding="utf-8") == schema_text(kind), (
        f"write it anew with: hebbbench schema {kind} > {place}"
    )


def test_a_schema_refuses_unknown_keys():
    assert json.loads(schema_text("result"))["additionalProperties"] is False
    assert json.loads(schema_text("protocol"))["additionalProperties"] is False
