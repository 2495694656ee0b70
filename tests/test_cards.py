"""Cards are measured once for each state of a rule's code, and measuring leaves no trace but the card."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import torch

from board_fixtures import CARD
from hebbbench import cards, checks
from hebbbench.errors import RuleError, UnknownNameError
from hebbbench.record.card import Card


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """The rules that were really measured, in order."""
    names: list[str] = []
    original = checks.measured_card

    def spy(rule: str) -> Card:
        names.append(rule)
        return original(rule)

    monkeypatch.setattr(checks, "measured_card", spy)
    return names


def write(path: Path, update: str) -> str:
    path.write_text(
        '"""Made by a test."""\nfrom hebbbench import Rule, hebb\n\n\n'
        f"class Made(Rule):\n    def delta(self, pre, post):\n        return {update}\n"
    )
    return str(path)


def test_a_card_is_measured_once_for_each_state_of_the_code(tmp_path, measured, monkeypatch):
    path, cache = tmp_path / "made_for_cards.py", tmp_path / "cache"
    rule = write(path, "hebb(post, pre)")
    assert cards.kept(rule, cache) is None
    first = cards.card(rule, cache)
    assert first.locality == "synapse"
    assert cards.card(rule, cache) == cards.kept(rule, cache) == first
    path.write_text(path.read_text().replace("Made by a test.", "Another docstring.") + "# and a comment\n")
    assert cards.card(rule, cache) == first
    assert len(measured) == 1
    write(path, "hebb(post.softmax(1), pre)")
    assert cards.kept(rule, cache) is None
    assert cards.card(rule, cache).locality == "layer"
    assert len(measured) == 2
    monkeypatch.setattr(cards, "CARD_VERSION", cards.CARD_VERSION + 1)
    assert cards.kept(rule, cache) is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"null", b'{"locality": "synapse"}'])
def test_a_damaged_file_is_measured_anew(tmp_path, monkeypatch, content):
    monkeypatch.setattr(checks, "measured_card", lambda rule: CARD)
    cards.card("random", tmp_path)
    (path,) = tmp_path.rglob("*.json")
    path.write_bytes(content)
    assert cards.kept("random", tmp_path) is None
    assert cards.card("random", tmp_path) == CARD
    assert cards.kept("random", tmp_path) == CARD


def test_a_cache_that_cannot_be_written_costs_no_card(tmp_path):
    (tmp_path / "file").write_text("")
    assert cards.card("random", tmp_path / "file").learns is False


def test_an_unknown_rule_is_named(tmp_path):
    with pytest.raises(UnknownNameError, match="no rule 'ojo'"):
        cards.card("ojo", tmp_path)


def test_a_rule_that_raises_or_does_not_repeat_has_no_card(tmp_path):
    with pytest.raises(RuleError, match=r"no card can be measured of rule .*: ZeroDivisionError: division by zero"):
        cards.card(write(tmp_path / "made_raising.py", "1 / 0"), tmp_path)
    with pytest.raises(RuleError, match="gave another update, or one that is not finite"):
        cards.card(write(tmp_path / "made_infinite.py", "hebb(post, pre) * float('inf')"), tmp_path)
    assert list(tmp_path.rglob("*.json")) == []


@pytest.mark.parametrize("rule", ["brsf", "ghl_shuffled"])
def test_measuring_leaves_generators_and_threads_alone(rule):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.manual_seed(5)
        before = torch.get_rng_state(), random.getstate(), torch.get_default_dtype(), torch.is_grad_enabled()
        checks.measured_card(rule)
        after = torch.get_rng_state(), random.getstate(), torch.get_default_dtype(), torch.is_grad_enabled()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_the_cache_may_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HEBBBENCH_CACHE", str(tmp_path))
    card = cards.card("random")
    assert cards.kept("random", tmp_path) == card
    assert os.listdir(tmp_path) == ["cards"]
