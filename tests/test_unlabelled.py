"""Where a protocol has unlabelled images, rules that see no label learn from them, and the others do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from hebbbench.data import DATASETS, load
from hebbbench.errors import DataError, ProtocolError
from hebbbench.progress import Silent
from hebbbench.training.run import Settings, load_data
from hebbbench.training.soundness import check_cell
from hebbbench.validation import canonical_json

SOFT = {"optimizer": {"lr": 0.01}, "init": {"law": "normal", "radius": 25.0}}
BARE = {"data.unlabelled": "bare"}


@pytest.fixture
def bare(monkeypatch):
    """The digits, of which rules may see no label, as a dataset of their own."""
    monkeypatch.setitem(DATASETS, "bare", replace(DATASETS["digits"], name="bare"))


def test_only_a_rule_without_labels_learns_from_them(lab, bare):
    protocol = lab.protocol("digits-mlp", BARE)
    soft, labelled = (
        lab.cell("softhebb", protocol, 0, **SOFT),
        lab.cell("softhebb", lab.protocol("digits-mlp"), 0, **SOFT),
    )
    mine, theirs = lab.run(soft), lab.run(labelled)
    assert mine.status == "ok"
    assert mine.cost.samples_seen > theirs.cost.samples_seen, "the validation cut is not taken out of them"
    assert mine.data.identity["unlabelled"] == mine.data.identity["train"]
    assert mine.data.samples == theirs.data.samples, "the probe sees the same images"
    assert mine.weights != theirs.weights
    assert mine.cell == soft.identity(mine.data.identity) != soft.identity(theirs.data.identity)
    supervised = lab.run(lab.cell("bp", protocol, 0, epochs=1))
    assert "unlabelled" not in supervised.data.identity


@pytest.mark.parametrize(
    ("rule", "recipe", "learns"),
    [
        ("softhebb", SOFT, True),
        ("softhebb", {**SOFT, "epochs": 0}, False),
        ("bp", {}, False),
        ("dfa", {}, False),
        ("ff", {}, False),
    ],
)
def test_who_learns_from_them(lab, rule, recipe, learns):
    cell = lab.cell(rule, lab.protocol("digits-mlp", BARE), 0, **recipe)
    assert cell.unlabelled == ("bare" if learns else None)
    assert cell.datasets == (("digits", "bare") if learns else ("digits",))


def test_who_trains_a_read_out_sees_labels(lab):
    protocol = lab.protocol("digits-mlp", {**BARE, "training.readout": "trained"})
    assert lab.cell("softhebb", protocol, 0, **SOFT).unlabelled is None


def test_diagnostics_need_no_label(lab, bare):
    protocol = lab.protocol("digits-mlp", {**BARE, "diagnostics": True})
    result = lab.run(lab.cell("softhebb", protocol, 0, epochs=1, **SOFT))
    assert result.status == "ok", result.reason
    assert any("hebbian_alignment" in name for name in result.curves)


def test_images_of_another_shape_are_refused(lab, monkeypatch, tmp_path):
    digits = load("digits", cache=lab.cache)
    with pytest.raises(DataError, match=r"images of digits are \(8, 8, 1\) .* those of digits \(9, 9, 1\)"):
        replace(digits, shape=(9, 9, 1)).beside(digits)


def test_a_dataset_without_labels_scores_nothing(lab):
    cell = lab.cell("softhebb", lab.protocol("digits-mlp", {"data.dataset": "stl10-unlabelled"}), 0, **SOFT)
    with pytest.raises(ProtocolError, match=r"'stl10-unlabelled' has no labels.*Give it as data.unlabelled"):
        check_cell(cell)


def test_both_datasets_are_asked_for(lab, monkeypatch):
    cell = lab.cell("softhebb", lab.protocol("digits-mlp", {"data.unlabelled": "stl10-unlabelled"}), 0, **SOFT)
    with pytest.raises(DataError, match="the dataset stl10-unlabelled is not on this machine"):
        load_data(cell, Settings(device="cpu", cache=lab.cache), Silent())


def test_alignment_wants_labels(lab):
    changes = {**BARE, "alignment": {"window": 5}}
    with pytest.raises(ValidationError, match=r"alignment is measured on labelled samples"):
        lab.protocol("digits-mlp", changes)


def test_what_is_not_used_leaves_no_trace(lab):
    assert "unlabelled" not in canonical_json(lab.protocol("digits-mlp").identity())
