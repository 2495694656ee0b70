"""The measured card: what is known of rules is what the probes find, and a rule that cheats is caught."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

import forked
from hebbbench.checks import Card, Report, badges, card_lines, check, measured_card
from hebbbench.checks.probes import null_space

CHEATS = Path(__file__).parent / "cheats"


@cache
def card(rule: str) -> Card:
    return measured_card(rule)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("bp", ["global", "labels", "backward pass", "weight transport", "update-locked", "online"]),
        ("sign", ["global", "labels", "backward pass", "weight transport", "update-locked", "online"]),
        ("ghl", ["global", "labels", "backward pass", "weight transport", "update-locked", "online"]),
        ("fa", ["global", "labels", "backward pass", "update-locked", "online"]),
        ("dfa", ["global", "labels", "update-locked", "online"]),
        ("softhebb", ["layer", "online"]),
        ("oja", ["synapse", "online"]),
        ("random", ["no learning"]),
    ],
)
def test_the_badges_of_known_rules(rule, words):
    assert badges(card(rule)) == words


def test_only_rules_that_normalise_over_the_batch_couple_samples():
    assert [card(rule).couples_samples for rule in ("bp", "oja", "sign", "ghl", "softhebb")] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_memory_grows_with_depth_where_activity_waits_for_an_error():
    held = {rule: card(rule).activations_held for rule in ("oja", "softhebb", "bp", "ghl")}
    assert held == {"oja": 0, "softhebb": 0, "bp": 1, "ghl": 1}
    assert [card(rule).memory_grows_with_depth for rule in held] == [False, False, True, True]


RULES = {
    "unit": ("pre, post: return hebb(post, pre)", "def constrain(self, weight):\n        return unit_norm(weight)"),
    "sanger": (
        "pre, post, weight: return hebb(post, pre) - (post.T @ post / len(post)).tril() @ weight",
        "pass",
    ),
    "labelled": ("pre, post, labels: return hebb(post * (1 + labels)[:, None].to(post.dtype), pre)", "pass"),
    "direct": (
        "pre, weight, error, state: return -hebb(error @ state['b'].to(error.dtype), pre)",
        "def init(self, weight):\n        source = torch.Generator().manual_seed(0)\n"
        "        return {'b': torch.randn(3, len(weight), generator=source)}",
    ),
}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unit", ["unit", "online"]),
        ("sanger", ["layer", "online"]),
        ("labelled", ["global", "labels", "online"]),
        ("direct", ["global", "labels", "update-locked", "online"]),
    ],
)
def test_the_badges_of_made_rules(tmp_path, name, words):
    delta, more = RULES[name]
    arguments, _, body = delta.partition(":")
    path = tmp_path / f"made_{name}.py"
    path.write_text(
        "import torch\nfrom hebbbench import Rule, decay, hebb, unit_norm\n\n\n"
        f"class Made(Rule):\n    {more}\n\n    def delta(self, {arguments}):\n        {body.strip()}\n"
    )
    assert badges(measured_card(str(path))) == words


def test_the_null_space_is_felt_by_no_row():
    rows = torch.randn(5, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    blind = null_space(rows)
    assert (rows @ blind).abs().max() < 1e-14
    assert torch.linalg.matrix_rank(blind) == 4


def test_the_card_is_told_in_lines():
    text = card_lines("bp")
    assert "weight transport  yes" in text
    assert "memory" in text


# Cheats

CAUGHT = {
    "class_memory": {"same-bits", "own-signals", "checkpoint", "card-repeats"},
    "gradient_by_frames": {"public-names", "no-graph", "card-labels", "card-backward", "card-transport"},
    "grad_through_pre": {"public-names"},
    "labels_by_gc": {"public-names", "own-signals", "card-labels"},
    "labels_in_state": {"public-names", "card-labels"},
    "reads_later_weights": {"public-names", "own-signals", "card-transport"},
    "shared_global": {"own-signals", "card-earlier-layers"},
}


@pytest.mark.parametrize("name", CAUGHT)
def test_a_cheat_is_caught(name):
    report: Report = check(str(CHEATS / f"{name}.py"))
    assert CAUGHT[name] <= {outcome.name for outcome in report.failures}, str(report)


def test_every_cheat_is_in_a_test():
    assert {path.stem for path in CHEATS.glob("*.py")} == {*CAUGHT, "patched_harness"}


@pytest.mark.parametrize(
    ("name", "findings"), [("labels_in_state", ["card-labels"]), ("patched_harness", ["public-names", "card-labels"])]
)
def test_the_command_fails_for_a_cheat(name, findings, tmp_path):
    status, out, err = forked.hebbbench("check", str(CHEATS / f"{name}.py"), cwd=tmp_path).wait()
    assert status == 1, out + err
    for finding in findings:
        assert any(line.split()[:2] == [finding, "FAILED"] for line in out.splitlines()), out
