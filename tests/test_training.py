"""A cell measures the same thing every time, learns when its rule claims to, and says so when it does not finish."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import At, Lab
from hebbbench.api import run
from hebbbench.data.dataset import Dataset
from hebbbench.errors import HebbBenchError
from hebbbench.record import environment
from hebbbench.training import course, probing, rehearsal
from hebbbench.training.learner import Learner
from hebbbench.training.loop import CHECK_EVERY, Diverged
from hebbbench.training.network import drops

SOFT = {"optimizer": {"lr": 0.01}, "init": {"law": "normal", "radius": 25.0}}
RESIDUAL = {
    "architecture": {"name": "resnet", "options": {"depth": 8, "width": 2}},
    "plastic": ["all convolutions"],
    "free": ["optimizer", "init"],
}
TRANSFORMER = {
    "architecture": {
        "name": "timm",
        "options": {"model": "test_vit", "arguments": {"img_size": 8, "patch_size": 4, "depth": 1, "embed_dim": 12}},
    },
    "plastic": ["all linear layers"],
    "free": ["optimizer"],
}
CASES = {
    "bp": ("bp", "digits-mlp", {}, {}),
    "ghl": ("ghl", "digits-mlp", {}, {"optimizer": {"lr": 0.03}}),
    "softhebb": ("softhebb", "digits-mlp", {}, SOFT),
    "conv": ("bp", "digits-deephebb", {}, {}),
    "conv softhebb": ("softhebb", "digits-deephebb", {}, SOFT),
    "layerwise": ("ghl", "digits-mlp", {}, {"schedule": "layerwise"}),
    "local layerwise": ("softhebb", "digits-mlp", {}, {"schedule": "layerwise", **SOFT}),
    "dropout": ("bp", "digits-mlp", {"architecture.options.dropout": 0.5}, {}),
    "crop-flip": ("bp", "digits-deephebb", {"data.augment": "crop-flip"}, {}),
    "adam": ("bp", "digits-mlp", {}, {"optimizer": {"name": "adam", "lr": 0.01}}),
    "residual bp": ("bp", "digits-deephebb", RESIDUAL, {}),
    "residual ghl": ("ghl", "digits-deephebb", RESIDUAL, {"optimizer": {"lr": 0.03}}),
    "residual fa": ("fa", "digits-deephebb", RESIDUAL, {}),
    "transformer ghl": ("ghl", "digits-deephebb", TRANSFORMER, {"optimizer": {"lr": 0.03}}),
    "untrained": ("random", "digits-mlp", {}, {"epochs": 0}),
}


def make(lab: Lab, name: str, seed: int = 0):
    rule, base, changes, recipe = CASES[name]
    return lab.cell(rule, lab.protocol(base, changes), seed, **recipe)


# Determinism


@pytest.mark.parametrize("name", CASES)
def test_the_same_cell_gives_the_same_bits_and_another_seed_gives_others(lab, name):
    first, again, other = (lab.run(make(lab, name, seed)) for seed in (0, 0, 1))
    assert first.status == "ok"
    assert first.measurement() == again.measurement()
    assert first.weights != other.weights
    assert first.metrics != other.metrics
    if name != "untrained":
        assert first.environment.determinism_probe is True


@pytest.mark.parametrize("apart", [True, False])
def test_what_counting_changes_is_not_taken_for_bits_that_do_not_repeat(lab, monkeypatch, apart):
    def count(learner, *batch):
        work = rehearsal_count(learner, *batch)
        for weight in learner.model.parameters():  # what is counted may be computed in another way
            weight.data.mul_(1 + 1e-6)
        return work

    rehearsal_count = rehearsal.count
    monkeypatch.setattr(rehearsal, "timed", lambda *which: apart)
    monkeypatch.setattr(rehearsal, "count", count)
    result = lab.run(make(lab, "dropout"))
    assert result.environment.determinism_probe is True
    assert result.work is not None


@pytest.mark.parametrize("apart", [True, False])
def test_bits_that_do_not_repeat_are_told(lab, monkeypatch, apart):
    digests = iter(range(9))
    monkeypatch.setattr(rehearsal, "timed", lambda *which: apart)
    monkeypatch.setattr(Learner, "digest", lambda self: f"{next(digests):064x}")
    assert lab.run(make(lab, "dropout")).environment.determinism_probe is False


@pytest.mark.parametrize("name", ["dropout", "crop-flip"])
def test_what_is_drawn_while_training_matters(lab, name):
    rule, base, _, recipe = CASES[name]
    plain = lab.run(lab.cell(rule, lab.protocol(base), **recipe))
    assert plain.weights != lab.run(make(lab, name)).weights


def test_no_cell_depends_on_the_cells_that_ran_before(lab):
    order = ("bp", "crop-flip", "dropout", "softhebb")
    forwards = {name: lab.run(make(lab, name)).measurement() for name in order}
    backwards = {name: lab.run(make(lab, name)).measurement() for name in reversed(order)}
    assert forwards == backwards


@pytest.mark.parametrize("name", ["bp", "softhebb", "dropout", "crop-flip"])
def test_a_cell_neither_reads_nor_moves_the_global_generator(lab, name):
    torch.manual_seed(1)
    first = lab.run(make(lab, name))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert lab.run(make(lab, name)).measurement() == first.measurement()
    assert torch.equal(torch.get_rng_state(), before)


def test_asking_for_progress_or_checkpoints_changes_no_number(lab):
    cell = lab.cell("bp")
    assert lab.run(cell, At(), every=0.0).measurement() == lab.run(cell).measurement()


def test_a_rule_from_outside_measures_what_the_same_rule_inside_does(lab):
    inside = lab.run(lab.cell("bp")).measurement()
    outside = lab.run(lab.cell(lab.rule("mybp", "grad: return -grad"))).measurement()
    assert outside.pop("cell") != inside.pop("cell")
    assert outside == inside


# Beating chance


@pytest.mark.parametrize(("rule", "lr", "least"), [("bp", 0.05, 0.85), ("ghl", 0.03, 0.85), ("sign", 0.001, 0.85)])
def test_a_rule_that_learns_beats_chance_by_a_wide_margin(lab, rule, lr, least):
    size = {"architecture.options.widths": [64, 64], "training.batch_size": 32, "probe.epochs": 10}
    protocol = lab.protocol("digits-mlp", {**size, "training.epochs": 3, "training.rest.lr": 0.05})
    momentum = 0.9 if rule == "bp" else 0.0
    result = lab.run(lab.cell(rule, protocol, optimizer={"lr": lr, "momentum": momentum}))
    assert result.metrics["probe.test.accuracy"].value > least
    assert result.metrics["end_to_end.test.accuracy"].value > least
    losses = [loss for _, loss in result.curves["train.loss"]]
    assert losses[-1] < losses[0] / 1.5


def test_a_probe_on_random_features_beats_chance(lab):
    protocol = lab.protocol("digits-mlp", {"architecture.options.widths": [64, 64], "probe.epochs": 20})
    result = lab.run(lab.cell("random", protocol, epochs=0))
    assert result.metrics["probe.test.accuracy"].value > 0.7
    assert result.cost.steps == 0


# What is recorded


def test_a_rule_with_a_task_loss_records_both_read_outs_and_its_curves(lab):
    result = lab.run(lab.cell("ghl"))
    assert set(result.metrics) == {
        "probe.train.accuracy", "probe.validation.accuracy", "probe.test.accuracy",
        "end_to_end.validation.accuracy", "end_to_end.test.accuracy",
    }  # fmt: skip
    assert {name: metric.split for name, metric in result.metrics.items()} == {
        name: name.split(".")[1] for name in result.metrics
    }
    assert {metric.epoch for name, metric in result.metrics.items() if name.startswith("probe")} == {3}
    assert {metric.epoch for name, metric in result.metrics.items() if name.startswith("end")} == {2}
    assert {name: [x for x, _ in points] for name, points in result.curves.items()} == {
        "train.loss": [1, 2],
        "end_to_end.validation.accuracy": [1, 2],
        "probe.validation.accuracy": [1, 2, 3],
    }
    assert result.curves["probe.validation.accuracy"][-1][1] == result.metrics["probe.validation.accuracy"].value


def test_a_local_rule_records_the_probe_alone(lab):
    result = lab.run(lab.cell("softhebb", **SOFT))
    assert set(result.metrics) == {"probe.train.accuracy", "probe.validation.accuracy", "probe.test.accuracy"}
    assert set(result.curves) == {"probe.validation.accuracy"}


def test_a_protocol_without_validation_samples_can_be_run(lab):
    result = lab.run(lab.cell("bp", lab.protocol("digits-mlp", {"data.validation": 0})))
    assert (result.status, result.reason) == ("ok", None)
    assert set(result.metrics) == {"probe.train.accuracy", "probe.test.accuracy", "end_to_end.test.accuracy"}
    assert set(result.curves) == {"train.loss"}


def test_costs_count_the_work_that_was_done(lab):
    cost = lab.run(lab.cell("bp")).cost
    assert (cost.steps, cost.samples_seen, cost.resumed) == (2 * 5, 2 * 1242, 0)
    for value in (cost.wall_seconds, cost.train_seconds, cost.probe_seconds, cost.step_seconds, cost.peak_memory_bytes):
        assert value > 0
    assert cost.images_per_second == pytest.approx(cost.samples_seen / cost.train_seconds)
    assert cost.wall_seconds >= cost.train_seconds + cost.probe_seconds


def test_a_layerwise_schedule_spends_the_epochs_once_a_layer(lab):
    assert lab.run(lab.cell("bp", schedule="layerwise")).cost.steps == 2 * 2 * 5


def test_a_last_batch_of_one_sample_is_left_out(lab):
    assert lab.run(lab.cell("bp", batch_size=73)).cost.samples_seen == 2 * 1241


def test_the_record_says_what_was_trained_on_which_data(lab):
    result = lab.run(lab.cell("ghl"))
    assert [(layer.name, layer.fan_in, layer.units) for layer in result.model.plastic] == [
        ("body.fc1", 64, 16), ("body.fc2", 16, 12),
    ]  # fmt: skip
    assert result.model.parameters == 64 * 16 + 16 * 12 + 12 * 10 + 10
    assert result.rule.signals == ["pre", "post", "weight", "grad"]
    assert result.data.samples.model_dump() == {"train": 1242, "validation": 200, "test": 355}
    assert set(result.data.identity) == {"train", "test"}


# The test split


def test_the_test_split_is_opened_once_and_only_after_the_probe_is_trained(lab, monkeypatch):
    seen = At()
    opened = []
    take = Dataset.open_test

    def spy(dataset: Dataset):
        opened.append([name for name in seen.phases if not name.startswith("decoding")])
        return take(dataset)

    monkeypatch.setattr(Dataset, "open_test", spy)
    for rule in ("bp", "softhebb"):
        seen.phases.clear()
        opened.clear()
        assert lab.run(lab.cell(rule), seen).status == "ok"
        assert opened == [["training", "extracting features", "linear probe"]]


def test_the_test_split_stays_closed_where_it_is_not_asked_for(lab, monkeypatch):
    def refuse(dataset: Dataset):
        raise AssertionError("the test split was opened")

    monkeypatch.setattr(Dataset, "open_test", refuse)
    result = lab.run(lab.cell("bp"), read_test=False)
    assert result.status == "ok"
    assert not [name for name in result.metrics if ".test." in name]
    assert "probe.validation.accuracy" in result.metrics


def test_a_cell_that_diverged_never_opens_the_test_split(lab, monkeypatch):
    monkeypatch.setattr(Dataset, "open_test", lambda dataset: pytest.fail("the test split was opened"))
    rule = lab.rule("nan", "weight: return weight * float('nan')")
    assert lab.run(lab.cell(rule)).status == "diverged"


# Cells that do not finish


@pytest.mark.parametrize(
    ("name", "delta"),
    [
        ("makesnan", "weight: return weight * float('nan')"),
        ("explodes", "weight: return weight * 1e12"),
        ("nanloss", "weight, grad: return weight * float('inf')"),
    ],
)
def test_a_rule_that_leaves_the_numbers_is_a_result_with_its_step_and_layer(lab, name, delta):
    result = lab.run(lab.cell(lab.rule(name, delta)), results=lab.results)
    assert result.status == "diverged"
    assert (result.stop.phase, result.stop.layer) == ("training", "body.fc1.weight")
    assert 0 < result.stop.step <= 10
    assert "body.fc1.weight" in result.reason
    assert result.metrics == {}
    assert json.loads(next(lab.results.rglob("*.json")).read_text())["status"] == "diverged"


def test_divergence_is_seen_within_a_known_number_of_steps(lab):
    protocol = lab.protocol("digits-mlp", {"training.batch_size": 20})
    result = lab.run(lab.cell(lab.rule("nan", "weight: return weight * float('nan')"), protocol))
    assert result.stop.step == CHECK_EVERY


@pytest.mark.parametrize("standardize", [True, False])
def test_features_that_leave_the_numbers_are_no_accuracy(lab, standardize):
    """Every weight is a number that has not exploded; what six layers of them make of an image is none."""
    more = (
        "    def constrain(self, weight):\n        signs = torch.arange(len(weight)) % 2 * 2.0 - 1\n"
        "        return torch.full_like(weight, 5e7) * signs[:, None]\n"
    )
    rule = lab.rule("huge", "weight: return torch.zeros_like(weight)", more)
    changes = {"architecture.options.widths": [8] * 6, "architecture.options.norm": "none", "probe.epochs": 2}
    result = lab.run(lab.cell(rule, lab.protocol("digits-mlp", {**changes, "probe.standardize": standardize})))
    assert (result.status, result.stop.phase, result.stop.layer) == ("diverged", "probe", "the features")
    assert re.fullmatch(r"diverged behind step \d+, in the features: not all are finite numbers", result.reason)
    assert "probe.test.accuracy" not in result.metrics


@pytest.mark.parametrize(
    ("step", "when"),
    [
        (1, "at step 1"),
        (50, "between steps 1 and 50"),
        (100, "between steps 51 and 100"),
        (109, "between steps 101 and 109"),
    ],
)
def test_when_a_cell_diverged_is_said_as_far_as_it_was_seen(step, when):
    assert str(Diverged(step, "body.fc1.weight", "a weight reached 1e+09")) == (
        f"diverged {when}, in body.fc1.weight: a weight reached 1e+09"
    )
    later = Diverged(step, "the features", "not all are finite numbers", f"behind step {step}")
    assert str(later) == f"diverged behind step {step}, in the features: not all are finite numbers"


def test_a_diverged_cell_is_not_run_again(lab):
    cell = lab.cell(lab.rule("nan", "weight: return weight * float('nan')"))
    lab.run(cell, results=lab.results)
    second = At()
    assert lab.run(cell, second, results=lab.results).status == "diverged"
    assert second.phases == []


def test_a_rule_that_raises_fails_with_its_reason_and_is_tried_again(lab):
    path = lab.rule("raises", "weight: raise ValueError('the third\\nreason')")
    cell = lab.cell(path)
    result = lab.run(cell, results=lab.results)
    assert result.status == "failed"
    assert "ValueError" in result.reason
    assert "the third reason" in result.reason
    assert result.metrics == {}
    retried = []
    original = course.Course.result
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course.Course, "result", lambda self, identity: retried.append(1) or original(self, identity))
        lab.run(cell, results=lab.results)
    assert retried == [1]


def test_a_delta_of_the_wrong_shape_fails_the_cell_by_name(lab):
    result = lab.run(lab.cell(lab.rule("shape", "weight: return weight.t()")))
    assert result.status == "failed"
    assert "Shape at layer 'body.fc1': delta has shape (64, 16)" in result.reason
    assert "(16, 64)" in result.reason


@pytest.mark.parametrize("error", [MemoryError("1 TB"), torch.OutOfMemoryError("1 TB")])
@pytest.mark.parametrize("phase", ["training", "probe"])
def test_running_out_of_memory_is_a_failure_with_that_reason(lab, monkeypatch, error, phase):
    where = {"training": (course.Loop, "run"), "probe": (probing, "extract")}[phase]

    def full(*_arguments: object):
        raise error

    monkeypatch.setattr(*where, full)
    result = lab.run(lab.cell("bp"), results=lab.results)
    assert (result.status, result.stop.phase) == ("failed", phase)
    assert result.reason == f"out of memory on cpu during {phase}: 1 TB"


def test_a_results_folder_that_cannot_be_written_fails_before_training(lab):
    from hebbbench.errors import ResultError

    (lab.root / "file").write_text("")
    seen = At()
    with pytest.raises(ResultError, match=r"results folder .*file/below/digits-mlp/bp cannot be written: .* --results"):
        lab.run(lab.cell("bp"), seen, results=lab.root / "file" / "below")
    assert seen.phases == []


def test_a_full_disk_is_noticed_before_training(lab, monkeypatch):
    from hebbbench.errors import ResultError

    real = os.statvfs

    def full(path):
        fields = list(real(path))
        fields[4] = 0  # f_bavail
        return os.statvfs_result(fields)

    monkeypatch.setattr(os, "statvfs", full)
    with pytest.raises(ResultError, match="is full"):
        lab.run(lab.cell("bp"), results=lab.results)


# The library's own door


def test_run_by_name_gives_what_the_cell_gives_and_finds_it_again(lab):
    protocol = lab.protocol()
    recipe = {"provenance": "default"}
    result = run(protocol, "bp", seed=3, recipe=recipe, results=lab.results)
    assert result.measurement() == lab.run(lab.cell("bp", protocol, 3)).measurement()
    seen = At()
    assert run(protocol, "bp", seed=3, recipe=recipe, results=str(lab.results), reporter=seen) == result
    assert seen.phases == []


@pytest.mark.parametrize("wrong", [{"settings": {"device": "cpu"}}, {"reporter": print}])
def test_what_run_cannot_use_is_refused_by_name(lab, wrong):
    (name,) = wrong
    with pytest.raises(HebbBenchError, match=f"{name} = .* is no {name.capitalize()}"):
        run(lab.protocol(), "bp", **wrong)


def test_a_rule_file_edited_between_two_runs_of_one_process_is_run_as_it_now_stands(lab):
    path = lab.rule("edited", "grad: return -grad")
    first = lab.run(lab.cell(path))
    lab.rule("edited", "grad: return -grad.sign()")
    second = lab.run(lab.cell(path))
    assert second.rule.source_hash != first.rule.source_hash
    assert second.weights != first.weights


# The environment


def test_a_getter_that_fails_leaves_null_and_a_reason_and_touches_no_neighbour(monkeypatch):
    sound = environment.describe("cpu", True)

    def broken():
        raise RuntimeError("no such thing")

    monkeypatch.setattr(environment, "_cpu", broken)
    monkeypatch.setattr(environment, "_commit", broken)
    found = environment.describe("cpu", True)
    reasons = dict.fromkeys(("cpu", "commit", "device_name"), "RuntimeError: no such thing")
    assert found.unavailable == {**sound.unavailable, **reasons}
    assert found.model_dump(exclude={"unavailable", *reasons}) == sound.model_dump(exclude={"unavailable", *reasons})
    assert (found.cpu, found.commit, found.device_name) == (None, None, None)


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_a_network_that_drops_out_in_any_way_is_seeded(kind):
    assert drops(nn.Sequential(nn.Linear(2, 2), kind(0.5)))
    assert not drops(nn.Sequential(nn.Linear(2, 2), kind(0.0)))


def test_a_package_that_is_not_installed_is_null_with_a_reason(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("torch", "no-such-package"))
    monkeypatch.setattr(environment, "WHERE_USED", {})
    found = environment.describe("cpu", None)
    assert found.packages == {"torch": environment.metadata.version("torch"), "no-such-package": None}
    assert "no-such-package" in found.unavailable["packages.no-such-package"]


def test_a_package_that_makes_networks_or_pixels_is_named_where_it_was_used(monkeypatch):
    monkeypatch.setattr(environment, "WHERE_USED", {"yaml": "pyyaml", "no_such_module": "torchvision"})
    found = environment.describe("cpu", None).packages
    assert found["pyyaml"] == environment.metadata.version("pyyaml")
    assert "torchvision" not in found


def test_a_commit_given_from_outside_leaves_dirty_unknown(monkeypatch):
    monkeypatch.setenv("HEBBBENCH_COMMIT", "a" * 40)
    found = environment.describe("cpu", None)
    assert (found.commit, found.dirty) == ("a" * 40, None)
    assert "HEBBBENCH_COMMIT" in found.unavailable["dirty"]


@pytest.fixture
def checkout(monkeypatch, tmp_path) -> Path:
    """A repository with the package in it, all committed."""
    for name in ("bench/hebbbench/__init__.py", "rules/oja.py", "results/seed-0.json", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("as it was\n")
    monkeypatch.delenv("HEBBBENCH_COMMIT", raising=False)
    monkeypatch.setattr(environment, "_package", lambda: tmp_path / "bench" / "hebbbench")
    for arguments in (["init", "-q"], ["add", "."], [*NOBODY, "commit", "-qm", "all"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    return tmp_path


NOBODY = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false"]


@pytest.mark.parametrize(
    ("path", "dirty"),
    [
        ("rules/oja.py", True),
        ("rules/not_yet_added.py", True),
        ("bench/hebbbench/__init__.py", True),
        ("results/seed-0.json", False),
        ("results/seed-1.json", False),
        ("README.md", False),
        ("notes.txt", False),
    ],
)
def test_a_tree_is_dirty_if_its_code_is_not_the_commits(checkout, path, dirty):
    assert environment.code().dirty is False
    (checkout / path).write_text("changed\n")
    assert environment.code().dirty is dirty


def test_a_result_names_the_code_it_began_with(checkout):
    began = environment.code()
    (checkout / "rules" / "oja.py").write_text("changed\n")
    subprocess.run(["git", *NOBODY, "commit", "-qam", "later"], cwd=checkout, check=True)
    (checkout / "rules" / "oja.py").write_text("changed once more\n")
    found = environment.describe("cpu", None, began_with=began)
    assert (found.commit, found.dirty) == (began.commit, False)
    assert environment.describe("cpu", None).commit != began.commit


def test_a_package_that_merely_lies_in_a_repository_has_no_commit_of_it(checkout, monkeypatch):
    installed = checkout / ".venv" / "hebbbench"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    monkeypatch.setattr(environment, "_package", lambda: installed)
    found = environment.describe("cpu", None)
    assert (found.commit, found.dirty) == (None, None)
    assert "no repository has" in found.unavailable["commit"]
    assert "no repository has" in found.unavailable["dirty"]
