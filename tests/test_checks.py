"""Conformance: every rule of the registry keeps its contract, and each check catches what it is for."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

import references
from hebbbench import registry
from hebbbench.checks import CHECKS, Report, check, disagreement, save_json
from hebbbench.errors import RuleError, UnknownNameError

DOCSTRING = '''"""Made by a test: a rule.

    Δw = something

Nobody 2026.
"""
'''


@cache
def report_on(rule: str) -> Report:
    return check(rule)


@pytest.mark.parametrize("rule", registry.rule_names())
def test_every_rule_passes(rule):
    report = report_on(rule)
    assert report.passed, str(report)
    assert report.card is not None


def test_every_check_has_an_outcome_and_each_only_once():
    names = [outcome.name for outcome in report_on("softhebb").outcomes]
    assert names == ["file", *CHECKS]


def rule_file(folder: Path, delta: str, fields: str = "pass", head: str = DOCSTRING, name: str = "made") -> str:
    """A rule in a file; `delta` is the argument list, a colon and the body, `fields` what stands before it."""
    arguments, _, body = delta.partition(":")
    path = folder / f"{name}.py"
    path.write_text(
        f"{head}from typing import Any, ClassVar, Literal\nimport torch\nfrom pydantic import PositiveFloat\n"
        "from hebbbench import Rule, decay, hebb, layer_max, soft_wta, unit_norm\n\n\n"
        f"class Made(Rule):\n    {fields}\n\n    def delta(self, {arguments}):\n        {body.strip()}\n"
    )
    return str(path)


OJA = "pre, post, weight: return hebb(post, pre) - decay(post * post, weight)"
DEFECTS: dict[str, tuple[str, str]] = {
    "signals": ("pre, post, weight=None: return hebb(post, pre)", "pass"),
    "defaults": (OJA, "rate: float"),
    "bad-values": ("pre, post: return hebb(post / self.temperature, pre)", "temperature: float = 1.0"),
    "knobs": ("pre, post: return hebb(post, pre)", "temperature: PositiveFloat = 1.0"),
    "shapes": ("pre, post: return hebb(post, pre).float()", "pass"),
    "update": ("pre, post: return hebb(post, pre) * float('inf')", "pass"),
    "finite-zeros": ("pre, post, weight: h = hebb(post, pre); return h / h.abs().max()", "pass"),
    "finite-constant": ("pre, post: x = pre.rows; return hebb(post / x.std(1, keepdim=True), pre)", "pass"),
    "finite-large": ("pre, post: return hebb(post.exp(), pre)", "pass"),
    "finite-one-sample": ("pre, post: return hebb(post / (post.std(0) + 1e-9), pre)", "pass"),
    "finite-bf16": ("pre, post: return hebb(post * torch.ones(1), pre)", "pass"),
    "convolution": ("pre, post, labels: return pre.outer(post) * pre.count / len(labels)", "pass"),
    "inputs-untouched": ("pre, post: return hebb(post.relu_(), pre)", "pass"),
    "sample-order": ("pre, post: return hebb(post.cumsum(0), pre)", "pass"),
    "same-bits": ("pre, post: return hebb(post + torch.rand((), generator=self.source), pre)",
                  "source: ClassVar[Any] = torch.Generator()"),
    "card-signals": ("pre, post, grad: return hebb(post, pre)", "pass"),
    "no-graph": ("pre, weight:\n        with torch.enable_grad():\n            w = weight.clone().requires_grad_()\n"
                 "            y = (pre.rows @ w.T).square().sum()\n"
                 "        return torch.autograd.grad(y, w)[0]", "pass"),
    "learns": ("pre, post: return -hebb(post, pre)", "pass"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:std\\(\\).*degrees of freedom:UserWarning")
@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found_by_its_check(tmp_path, name):
    delta, fields = DEFECTS[name]
    report = check(rule_file(tmp_path, delta, fields, name=name.replace("-", "_")), only=[name])
    outcome = report.outcome(name)
    assert outcome.status == "failed", str(report)
    assert outcome.detail
    assert not report.passed


@pytest.mark.parametrize(
    ("head", "missing"),
    [
        ("", "there is no docstring"),
        ('"""A rule of no source at all.\n\n    Δw = x\n"""\n', "lacks the source"),
        ('"""A rule by Nobody 2026."""\n', "lacks the equation"),
    ],
)
def test_a_docstring_has_line_equation_and_source(tmp_path, head, missing):
    outcome = check(rule_file(tmp_path, OJA, head=head), only=["docstring"]).outcome("docstring")
    assert outcome.status == "failed"
    assert missing in outcome.detail


def test_a_state_made_late_does_not_survive_a_checkpoint(tmp_path):
    late = 'pre, post, state: state.setdefault("n", torch.ones(())).mul_(2); return hebb(post, pre) / state["n"]'
    outcome = check(rule_file(tmp_path, late), only=["checkpoint"]).outcome("checkpoint")
    assert outcome.status == "failed"
    assert "Make every tensor in `init`" in outcome.detail


def test_draws_from_the_global_generator_are_no_cells_own(tmp_path):
    made = rule_file(tmp_path, "pre, post: return hebb(post * torch.rand_like(post), pre)")
    report = check(made, only=["same-bits", "checkpoint"])
    assert [outcome.name for outcome in report.failures] == ["same-bits", "checkpoint"]
    assert "draw_counter" in report.failures[0].detail


def test_a_phantom_knob_and_its_values_are_named(tmp_path):
    outcome = check(rule_file(tmp_path, *DEFECTS["knobs"]), only=["knobs"]).outcome("knobs")
    assert "'temperature' (tried 1.7" in outcome.detail


def test_a_knob_that_acts_only_under_another_flag_is_no_phantom(tmp_path):
    fields = "flag: bool = False\n    power: PositiveFloat = 2.0"
    delta = "pre, post: return hebb(post.abs().pow(self.power) if self.flag else post, pre)"
    report = check(rule_file(tmp_path, delta, fields), only=["knobs"])
    assert report.outcome("knobs").status == "passed"


# Rules whose update fails

BROKEN = {
    "raises": ("return hebb(y, pre)", "shapes", "NameError: name 'y' is not defined (made.py, line 17)"),
    "shape": ("return hebb(post, pre).T", "shapes", "has shape (12, 24), not (24, 12). It is the direction of change"),
    "type": ("return hebb(post, pre).double()", "shapes", "has dtype torch.float64, not torch.float32. Make new"),
    "no tensor": ("return None", "shapes", "delta returns None, not a tensor"),
    "not finite": ("return hebb(post, pre) / 0 * 0", "update", "1200 of 1200 entries of delta are not finite at layer"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_an_update_that_fails_is_told_once_and_what_depends_on_it_is_skipped(tmp_path, kind, monkeypatch):
    body, name, message = BROKEN[kind]
    path = Path(rule_file(tmp_path, f"pre, post: {body}"))
    path.with_suffix(".yaml").write_text("recipes: {digits-mlp: {provenance: default, hyperparameters: {tau: 1.0}}}\n")
    report = check(str(path))
    told = {outcome.name: outcome.detail for outcome in report.failures}
    assert set(told) == {name, "recipes"}  # whether recipes fit can be said of any rule
    assert message in told[name]
    assert "made.yaml, under 'digits-mlp': " in told["recipes"]
    skipped = [outcome.name for outcome in report.outcomes if outcome.detail == "delta fails"]
    assert len(skipped) > 20
    assert {"learns", "card-repeats", "reference", "knobs"} <= set(skipped)
    monkeypatch.setenv("COLUMNS", "90")
    assert max(map(len, str(report).splitlines()[2:])) <= 90


def test_a_procedure_that_fails_is_told_once_too(tmp_path):
    path = Path(rule_file(tmp_path, "pre: return 1"))
    path.write_text(path.read_text().replace("def delta(self, pre)", "def step(self, network, input, labels)"))
    report = check(str(path))
    assert [outcome.name for outcome in report.failures] == ["update"]
    assert "step fails" in {outcome.detail for outcome in report.outcomes}


# Files that are no rule, and names that are none


@pytest.mark.parametrize(
    "text", ["", "this is not Python", "raise ValueError('no')", "from hebbbench import Rule\nclass A(Rule): pass"]
)
def test_a_file_that_is_no_rule_fails_with_the_reason(tmp_path, text):
    path = tmp_path / "broken.py"
    path.write_text(text)
    report = check(str(path))
    assert not report.passed
    assert [outcome.name for outcome in report.outcomes] == ["file"]
    assert report.outcomes[0].detail


def test_an_unknown_rule_raises():
    with pytest.raises(UnknownNameError, match="Did you mean 'softhebb'"):
        check("sofhebb")
    with pytest.raises(RuleError, match="no rule file"):
        check("nowhere/made.py")
    with pytest.raises(UnknownNameError, match=r"no check 'knob'\. Did you mean 'knobs'"):
        check("oja", only=["knob"])


# Expected failures


def test_a_declared_failure_is_expected_and_its_reason_told(tmp_path):
    fields = "expected_failures: ClassVar[dict[str, str]] = {'learns': 'a control'}"
    report = check(rule_file(tmp_path, "weight: return weight * 0", fields), only=["docstring", "learns"])
    assert report.outcome("learns").status == "expected"
    assert "a control" in report.outcome("learns").detail
    assert report.passed, str(report)


def test_a_declared_failure_that_passes_is_a_failure(tmp_path):
    fields = "expected_failures: ClassVar[dict[str, str]] = {'sample-order': 'it goes one by one'}"
    report = check(rule_file(tmp_path, OJA, fields), only=["sample-order", "shapes"])
    assert [outcome.name for outcome in report.failures] == ["sample-order"]
    assert "but passes" in report.failures[0].detail


def test_a_declared_failure_of_no_check_is_a_failure(tmp_path):
    fields = "expected_failures: ClassVar[dict[str, str]] = {'sample-oder': 'a slip'}"
    report = check(rule_file(tmp_path, OJA, fields), only=["shapes"])
    assert "Did you mean 'sample-order'?" in report.outcome("file").detail
    assert not report.passed


# References and reports

REFERENCE = """

def reference_made(pre, post, weight):
    u, x = post.tolist(), pre.tolist()
    return [[sum(u[n][k] * (x[n][i] - u[n][k] * float(weight[k][i])) for n in range(len(x))) / len(x)
             for i in range(len(x[0]))] for k in range(len(weight))]
"""


@pytest.mark.parametrize("file", ["made.py", "test_made.py"])
def test_a_reference_stands_in_the_rules_file_or_in_its_test_under_the_rules_name(tmp_path, file):
    path, place = Path(rule_file(tmp_path, OJA)), tmp_path / file
    outcome = check(str(path), only=["reference"]).outcome("reference")
    assert outcome.detail == "there is no reference_made in test_made.py beside the rule, nor in made.py"
    before = place.read_text() if place.exists() else '"""A test."""\n'
    place.write_text(before + REFERENCE)
    outcome = check(str(path), only=["reference"]).outcome("reference")
    assert (outcome.status, outcome.detail[:19]) == ("passed", f"reference_made of {file}"[:19])
    place.write_text(before + REFERENCE.replace("x[n][i] -", "x[n][i] +"))
    assert "the reference differ most at" in check(str(path), only=["reference"]).outcome("reference").detail


def test_of_a_rule_of_the_repository_the_reference_is_the_suites(tmp_path):
    detail = report_on("oja").outcome("reference").detail
    assert detail == "the test suite compares reference_oja of tests/references.py"
    assert references.reference_oja


def test_a_reference_may_be_written_as_those_of_the_repository_are(tmp_path):
    decay = "    def init(self, weight):\n        return {'rate': torch.full((), 0.5, dtype=weight.dtype)}"
    made = rule_file(tmp_path, 'pre, post, weight, state: return hebb(post, pre) - state["rate"] * weight', decay[4:])
    assert (
        disagreement(made, lambda x_patches, post, weight, rate: post.T @ x_patches / len(post) - rate * weight) is None
    )


def test_a_wrong_reference_is_told_with_the_entry(tmp_path):
    problem = disagreement("oja", lambda pre, post, weight: post.T @ pre / len(pre))
    assert problem is not None
    assert problem.startswith("on a linear layer: delta and the reference differ most at unit")


def test_a_reference_asks_for_what_exists():
    problem = disagreement("oja", lambda pre, outputs: pre)
    assert problem is not None
    assert "asks for 'outputs'" in problem


def test_the_json_report_says_what_the_table_says(tmp_path):
    report = report_on("softhebb")
    save_json([report], tmp_path / "report.json")
    plain = json.loads((tmp_path / "report.json").read_text())
    assert plain["passed"] is True
    assert {item["name"]: item["status"] for item in plain["reports"][0]["outcomes"]} == {
        outcome.name: outcome.status for outcome in report.outcomes
    }
    assert plain["reports"][0]["card"]["locality"] == "layer"
    for outcome in report.outcomes:
        assert outcome.name in str(report)
