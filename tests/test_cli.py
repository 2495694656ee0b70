"""The command line as a stranger meets it: what runs, what is kept, what is said, and how it exits."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import hebbbench
from conftest import NETWORK, At, Lab, command_line
from hebbbench import cards, checks, registry, report
from hebbbench.checks import Card, badges
from hebbbench.errors import HebbBenchError
from hebbbench.record import store
from hebbbench.training import course

AXIS = {"axes": {"width": {"path": "architecture.options.dropout", "values": [0.0, 0.5]}}}


@pytest.fixture
def call(lab, monkeypatch, capsys):
    """call(arguments) → (exit status, standard output, standard error), as the installed command gives them."""
    monkeypatch.chdir(lab.root)
    return command_line(monkeypatch, capsys)


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """The cells that were really run, in order."""
    cells: list[str] = []
    result = course.Course.result

    def spy(self, identity):
        cells.append(f"{self.cell.rule_name} {self.cell.seed}")
        return result(self, identity)

    monkeypatch.setattr(course.Course, "result", spy)
    return cells


def stored(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.json"))


# run


def test_run_keeps_one_canonical_file_a_cell_and_says_where(lab, call, trained):
    code, out, err = call("run", "-p", lab.protocol_file(), "-r", "bp", "-r", "random", "-s", "0-1", "-s", "7")
    assert (code, err) == (0, "")
    assert trained == ["bp 0", "random 0", "bp 1", "random 1", "bp 7", "random 7"]
    assert stored(lab.root / "runs") == [
        f"tiny/{rule}/seed-{seed}.json" for rule in ("bp", "random") for seed in (0, 1, 7)
    ]
    assert all(item.problem is None for item in store.scan(lab.root / "runs"))
    assert "[6/6] tiny · random · seed 7" in out
    assert out.count("warning: seed 7 is not one of tiny's, 0, 1, 2, 3, 4: no board counts that") == 1
    for path in (lab.root / "runs").rglob("*.json"):
        value = json.loads(path.read_text())["metrics"]["probe.test.accuracy"]["value"]
        assert f"{100 * value:.2f} %" in out


def test_seeds_that_no_board_counts_are_told_in_one_line(lab, call):
    said = call("run", "-p", lab.protocol_file(), "-r", "random", "-s", "3-8", "-s", "11")[1]
    assert said.count("warning") == 1
    assert "warning: seeds 5-8, 11 are none of tiny's, 0, 1, 2, 3, 4: no board counts that" in said


def test_seed_zero_is_run_if_none_is_named_and_all_runs_the_protocols(lab, call, trained):
    path = lab.protocol_file("digits-mlp", {"seeds": [0, 2]})
    assert call("run", "-p", path, "-r", "random")[0] == 0
    assert trained == ["random 0"]
    assert call("run", "-p", path, "-r", "random", "-s", "all")[0] == 0
    assert trained == ["random 0", "random 2"]


def test_a_seed_named_twice_is_run_once(lab, call, trained):
    call("run", "-p", lab.protocol_file(), "-r", "random", "-s", "1", "-s", "0-1", "-s", "1")
    assert trained == ["random 1", "random 0"]


def test_every_rule_is_run_for_all(lab, call, trained, monkeypatch):
    monkeypatch.setattr(registry, "rule_names", lambda: ["bp", "random", "sign"])
    code, _, err = call("run", "-p", lab.protocol_file(), "-r", "all")
    assert trained == ["bp 0", "random 0", "sign 0"]
    assert (code, err) == (0, "")


def test_a_finished_cell_is_not_run_twice_unless_forced(lab, call, trained):
    arguments = ("run", "-p", lab.protocol_file(), "-r", "bp")
    call(*arguments)
    (path,) = (lab.root / "runs").rglob("*.json")
    before = path.read_bytes()
    code, out, _ = call(*arguments)
    assert (code, trained, path.read_bytes()) == (0, ["bp 0"], before)
    assert "ok" in out
    assert call(*arguments, "--force")[0] == 0
    assert trained == ["bp 0", "bp 0"]
    measured = [json.loads(text) for text in (before, path.read_bytes())]
    assert measured[0]["metrics"] == measured[1]["metrics"]
    assert measured[0]["weights"] == measured[1]["weights"]


def test_a_damaged_file_among_the_results_is_told_before_anything_is_trained(lab, call, trained):
    arguments = ("run", "-p", lab.protocol_file(), "-r", "bp")
    call(*arguments)
    (path,) = (lab.root / "runs").rglob("*.json")
    path.write_text(path.read_text()[:100])
    code, _, err = call(*arguments, "-r", "random", "-s", "1", "-s", "0")
    assert (code, trained) == (2, ["bp 0"])
    assert path.name in err
    assert err.count("\n") == 1
    assert call(*arguments, "--force")[0] == 0


def test_a_cell_of_another_protocol_version_is_run_again(lab, call, trained):
    call("run", "-p", lab.protocol_file(), "-r", "random")
    _, out, _ = call("run", "-p", lab.protocol_file("digits-mlp", {"version": 2}), "-r", "random")
    assert trained == ["random 0", "random 0"]
    assert "  tiny · random · seed 0: replaces the result of another version of the protocol: 1 → 2\n" in out


def test_what_a_run_replaces_is_told_before_anything_is_trained(lab, call, trained, monkeypatch):
    path = Path(lab.rule("mine", "grad: return -grad"))
    recipe = "recipes: {{tiny: {{provenance: default, epochs: 2, optimizer: {{lr: {}}}}}}}\n"
    arguments = ("run", "-p", lab.protocol_file("digits-mlp", {"free": ["epochs", "optimizer"]}), "-r", path)
    path.with_suffix(".yaml").write_text(recipe.format(0.05))
    assert "replaces the" not in call(*arguments, "-s", "0-1")[1]
    path.with_suffix(".yaml").write_text(recipe.format(1.0))
    _, out, _ = call(*arguments)
    line = "  tiny · mine · seed 0: replaces the result of another recipe: optimizer.lr 0.05 → 1.0\n"
    assert line in out
    assert out.index(line) < out.index("[1/1]")
    assert "replaces the" not in call(*arguments)[1]  # now it is this cell's
    path.write_text(path.read_text().replace("-grad", "-2 * grad"))
    path.with_suffix(".yaml").write_text(recipe.replace("epochs: 2", "epochs: 1").format(0.1))
    monkeypatch.setattr(report, "NUMERICS_VERSION", 99)
    said = [line for line in call(*arguments, "-s", "0-1", "--force")[1].splitlines() if "replaces the" in line]
    assert len(said) == 2
    assert said[0].startswith("  tiny · mine · seed 0: replaces the result of another recipe: epochs 2 → 1, ")
    assert re.search(
        r"optimizer\.lr 1\.0 → 0\.1; of another version of the rule: \w{12} → \w{12}; of .* 1 → 99$", said[0]
    )


def test_results_replaced_for_one_reason_are_told_in_one_line(lab, call):
    path = lab.protocol_file()
    call("run", "-p", path, "-r", "random", "-s", "0-2")
    _, out, _ = call("run", "-p", lab.protocol_file("digits-mlp", {"version": 2}), "-r", "random", "-s", "0-2")
    assert out.count("replaces the") == 1
    assert "  tiny · random: replaces the results of 3 cells, of another version of the protocol: 1 → 2\n" in out


def test_a_rule_in_a_file_of_ones_own_is_run_with_the_recipe_beside_it(lab, call):
    path = Path(lab.rule("mine", "grad: return -grad"))
    path.with_suffix(".yaml").write_text("recipes: {tiny: {provenance: default, optimizer: {lr: 0.0123}}}\n")
    code, _, err = call("run", "-p", lab.protocol_file(), "-r", path)
    assert (code, err) == (0, "")
    result = store.load(lab.root / "runs" / "tiny" / "mine" / "seed-0.json")
    assert result.recipe.training.optimizer.lr == 0.0123
    assert result.rule.source_hash == registry.rule_source_hash(str(path))


def test_a_network_in_a_file_of_ones_own_is_run_and_run_again_once_it_is_another(lab, call, trained):
    path = lab.root / "net.py"
    path.write_text(NETWORK)
    changes = {"architecture": {"name": str(path), "options": {"width": 5}}, "plastic": ["1"], "free": ["epochs"]}
    arguments = ("run", "-p", lab.protocol_file("digits-mlp", changes), "-r", "random")

    def state() -> str:
        return call(*arguments, "--dry-run")[1]

    assert "done" not in state()
    assert call(*arguments)[0] == 0
    result = store.load(lab.root / "runs" / "tiny" / "random" / "seed-0.json")
    assert result.architecture.source_hash == registry.architecture_source_hash(str(path))
    assert "done" in state()
    path.write_text(f"{NETWORK}# the same\n")
    call(*arguments)
    assert trained == ["random 0"]
    path.write_text(NETWORK.replace("width)", "width, bias=False)"))
    assert "to be replaced" in state()
    _, out, _ = call(*arguments)
    assert re.search(r"seed 0: replaces the result of another version of the network: \w{12} → \w{12}\n", out)
    assert trained == ["random 0"] * 2


def test_two_rules_of_one_name_are_refused_before_anything_runs(lab, call, trained):
    paths = []
    for folder in ("a", "b"):
        (lab.root / folder).mkdir()
        Path(lab.rule("mine", "grad: return -grad")).rename(lab.root / folder / "mine.py")
        paths += ["-r", str(lab.root / folder / "mine.py")]
    code, _, err = call("run", "-p", lab.protocol_file(), *paths)
    assert (code, trained) == (2, [])
    assert "two rules are called 'mine': " in err
    assert call("run", "-p", lab.protocol_file(), *paths[:2], *paths[:2])[0] == 0


def test_a_failure_does_not_cost_the_result_of_the_same_cell(lab, call, monkeypatch):
    arguments = ("run", "-p", lab.protocol_file(), "-r", "bp")
    call(*arguments)
    (path,) = (lab.root / "runs").rglob("*.json")
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(course.Course, "_measure", fail)
    code, out, _ = call(*arguments, "--force")
    assert code == 1
    assert "the earlier result stays" in out
    assert path.read_bytes() == before


def test_a_slip_in_a_rule_does_not_cost_the_result_it_had(lab, call):
    path = Path(lab.rule("mine", "grad: return -grad"))
    arguments = ("run", "-p", lab.protocol_file(), "-r", path)
    assert call(*arguments)[0] == 0
    (result,) = (lab.root / "runs").rglob("*.json")
    before = result.read_bytes()
    path.write_text(path.read_text().replace("-grad", "-grda"))
    code, out, _ = call(*arguments)
    assert (code, result.read_bytes()) == (1, before)
    assert "the earlier result stays" in out


def test_weights_beside_a_result_are_those_of_its_cell(lab, call):
    path = Path(lab.rule("mine", "grad: return -grad"))

    def run_at(rate, *more):
        recipe = f"{{provenance: default, optimizer: {{name: sgd, lr: {rate}}}}}"
        path.with_suffix(".yaml").write_text(f"recipes: {{tiny: {recipe}}}\n")
        assert call("run", "-p", lab.protocol_file(), "-r", path, *more)[0] == 0
        return {file.suffix: file.read_bytes() for file in (lab.root / "runs").rglob("seed-0.*")}

    first = run_at(0.1, "--save-weights")
    assert run_at(0.1) == first
    assert run_at(0.2).keys() == {".json"}
    second = run_at(0.2, "--save-weights")
    assert second.keys() == first.keys()
    assert second[".safetensors"] != first[".safetensors"]


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ('feedback: str = "random"', "'feedback' is no hyper-parameter .* ClassVar = \"random\""),
        ("copy: float = 1.0", "'copy' is no hyper-parameter but a part of every rule"),
        ("tau: 'Foo' = 1.0", "a hyper-parameter has a type that Python does not know: .*Foo"),
        ("tau: float = 'a'", r"the defaults in the rule's own file \(.*mine.py\): Mine.tau = 'a'"),
        ("tau: float", "rule Mine has no value for its hyper-parameter 'tau'"),
    ],
)
def test_a_hyperparameter_of_a_rules_file_that_cannot_be_is_refused(lab, call, field, message):
    path = lab.rule("mine", "grad: return -grad", f"    {field}")
    code, _, err = call("run", "-p", lab.protocol_file(), "-r", path)
    assert code == 2
    assert re.search(message, err), err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("grad: self.last = grad; return -grad", r"sets self\.last\. .* belongs in `state`"),
        ("grad: return -grad.double()", r"delta returned torch\.float64, and the weight is torch\.float32"),
        ("weight: return weight.tolist()", r"delta returned \[\[\.\.\.\], .{0,80}; it must return"),
    ],
)
def test_what_a_rule_must_not_do_is_told_in_its_own_terms(lab, call, body, message):
    code, out, err = call("run", "-p", lab.protocol_file(), "-r", lab.rule("mine", body))
    assert code in (1, 2)
    assert re.search(message, out + err), out + err


def test_all_rules_leave_room_for_one_more_and_one_file_is_one_rule(lab, call):
    mine, every = lab.rule("mine", "grad: return -grad"), lab.protocol_file("digits-mlp", {"rules": ["bp", "random"]})
    _, out, _ = call("run", "-p", every, "-r", "all", "-r", mine, "-r", f"{lab.root}/./mine.py", "--dry-run")
    assert [name for name in ("bp", "random", "mine") if re.search(rf"\b{name}\b", out)] == ["bp", "random", "mine"]
    assert out.count("mine") == 1
    code, _, err = call("run", "-p", every, "-r", "all", "-r", "nope", "--dry-run")
    assert code == 2
    assert "no rule 'nope'" in err


def test_a_range_of_seeds_has_an_end(lab, call):
    code, _, err = call("run", "-p", lab.protocol_file(), "-r", "bp", "--seed", "0-999999999")
    assert code == 2
    assert "names 1000000000 seeds. Ask for 10000 at most" in err


def test_a_rule_that_only_some_points_are_for_must_exist(lab, call):
    axes = {"rate": {"path": "training.optimizer.lr", "values": [0.1, 0.2], "rules": ["bpp"]}}
    code, _, err = call("run", "-p", lab.protocol_file("digits-mlp", {"axes": axes}), "-r", "bp", "--dry-run")
    assert code == 2
    assert "axes.rate.rules: there is no rule 'bpp'. Did you mean 'bp'?" in err


def test_a_network_whose_every_parameter_is_plastic_trains(lab, call):
    whole = {"plastic": ["*"], "architecture.options": {"widths": [4], "norm": "none", "biases": "none"}}
    code, out, err = call("run", "-p", lab.protocol_file("digits-mlp", whole), "-r", "bp")
    assert code == 0, out + err


def test_a_check_of_a_rule_that_ends_python_says_so(lab, call):
    code, out, err = call("check", lab.rule("mine", "grad: import sys; sys.exit(3)"))
    assert code == 1
    assert re.search(r"SystemExit: 3|calls sys\.exit\(3\)", out + err), out + err


def test_two_files_are_compared_where_there_is_no_folder_of_results(lab, call, monkeypatch):
    for rule in ("bp", "random"):
        call("run", "-p", lab.protocol_file(), "-r", rule)
    ours, theirs = sorted((lab.root / "runs").rglob("*.json"))
    code, out, err = call("compare", ours, theirs, "-p", lab.protocol_file())
    assert (code, err) == (0, ""), err
    assert "bp" in out


@pytest.mark.parametrize("more", [(), ("--executor", "local")])
@pytest.mark.parametrize("device", ["meta", "mps", "xla"])
def test_a_device_that_cells_do_not_run_on_is_refused(lab, call, device, more):
    code, _, err = call("run", "-p", lab.protocol_file(), "-r", "bp", "--device", device, *more)
    assert (code, err) == (
        2,
        f"hebbbench: device '{device}' is none that cells run on. Valid: cpu, cuda, cuda:0, cuda:1, ….\n",
    )


def test_the_next_command_names_the_folder_of_results_if_it_is_another(lab, call):
    arguments = ("run", "-p", lab.protocol_file(), "-r", "random")
    assert "--seed all\n" in call(*arguments)[1]
    assert "--seed all --results other\n" in call(*arguments, "--results", "other")[1]


def test_a_recipe_for_a_name_much_like_the_protocols_is_not_passed_over_in_silence(lab, call):
    path = Path(lab.rule("mine", "grad: return -grad"))
    recipes = "recipes: {{{}: {{provenance: default, optimizer: {{lr: 0.0123}}}}}}\n"
    path.with_suffix(".yaml").write_text(recipes.format("tinny"))
    _, out, _ = call("run", "-p", lab.protocol_file(), "-r", path, "-r", "bp")
    warning = "warning: mine.yaml has a recipe for 'tinny', and none for 'tiny': the protocol's defaults stand"
    assert out.count("warning") == 1
    assert warning in out
    for name in ("default", "tiny", "another"):
        path.with_suffix(".yaml").write_text(recipes.format(name))
        assert "warning" not in call("run", "-p", lab.protocol_file(), "-r", path)[1]


def test_axes_are_spanned_or_fixed(lab, call, trained):
    path = lab.protocol_file("digits-mlp", AXIS)
    assert call("run", "-p", path, "-r", "random")[0] == 0
    assert stored(lab.root / "runs") == [f"tiny/random/width={value}/seed-0.json" for value in ("0.0", "0.5")]
    assert call("run", "-p", path, "-r", "bp", "--axis", "width=0.5")[0] == 0
    assert stored(lab.root / "runs")[:1] == ["tiny/bp/width=0.5/seed-0.json"]
    assert len(trained) == 3


def test_the_results_folder_may_come_from_the_environment(lab, call, monkeypatch):
    monkeypatch.setenv("HEBBBENCH_RESULTS", str(lab.root / "elsewhere"))
    call("run", "-p", lab.protocol_file(), "-r", "random")
    assert stored(lab.root / "elsewhere") == ["tiny/random/seed-0.json"]


# Cells that do not finish


def test_one_broken_rule_among_three_leaves_three_files_and_a_status_of_one(lab, call):
    raises = lab.rule("raises", "weight: raise ValueError('on purpose')")
    code, out, err = call("run", "-p", lab.protocol_file(), "-r", "bp", "-r", raises, "-r", "random")
    assert (code, err) == (1, "")
    states = {path.parent.name: json.loads(path.read_text())["status"] for path in (lab.root / "runs").rglob("*.json")}
    assert states == {"bp": "ok", "raises": "failed", "random": "ok"}
    assert re.search(r"failed: ValueError during training: on purpose \(raises.py, line \d+\)", out)
    assert len([line for line in out.splitlines() if re.match(r"(bp|raises|random) .*seed 0", line)]) == 3


def test_a_rule_whose_update_has_the_wrong_shape_does_not_take_the_others_with_it(lab, call):
    wrong = lab.rule("wrong", "weight: return weight.t()")
    code, _, _ = call("run", "-p", lab.protocol_file(), "-r", "bp", "-r", wrong, "-r", "random")
    assert code != 0
    assert {"tiny/bp/seed-0.json", "tiny/random/seed-0.json"} <= set(stored(lab.root / "runs"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tiny", "{tua: 1.0}", "rule Mine has no hyper-parameter 'tua'. Did you mean 'tau'?"),
        ("default", "{tau: a}", "Mine.tau = 'a' must be a number."),
        ("tiny", "{tau: [1.0, a]}", "Mine.tau = 'a' must be a number."),
        ("tiny", "{tau: [1.0]}", "hyper-parameter tau = [1.0] has 1 values for 2 plastic layers"),
    ],
)
def test_a_hyperparameter_that_cannot_be_is_refused_by_the_recipes_file(lab, call, name, value, message):
    path = Path(lab.rule("mine", "grad: return -grad", "    tau: float = 1.0\n"))
    path.with_suffix(".yaml").write_text(f"recipes: {{{name}: {{provenance: default, hyperparameters: {value}}}}}\n")
    for command in ("run", "cost"):
        code, _, err = call(command, "-p", lab.protocol_file(), "-r", "bp", "-r", path)
        assert code == 2
        assert f"{path.with_suffix('.yaml')}, recipe '{name}': {message}" in err
        assert err.count("\n") == 1
    assert stored(lab.root / "runs") == []


def test_a_rule_that_reckons_with_other_classes_than_the_data_have_is_refused(lab, call):
    path = Path(lab.rule("mine", "grad: return -grad", "    classes: int = 100\n"))
    code, _, err = call("run", "-p", lab.protocol_file(), "-r", path)
    assert code == 2
    assert "rule 'mine' reckons with classes = 100, and digits has 10. Write hyperparameters: {classes: 10}" in err
    path.with_suffix(".yaml").write_text("recipes: {tiny: {provenance: default, hyperparameters: {classes: 10}}}\n")
    code, _, err = call("run", "-p", lab.protocol_file(), "-r", path)
    assert code == 0, err


def test_a_rule_that_fails_before_it_learns_is_one_line(lab, call):
    path = lab.rule("mine", "grad: return -grad", "    def init(self, weight):\n        return {'a': nothing}\n")
    code, _, err = call("run", "-p", lab.protocol_file(), "-r", path)
    assert code == 2
    said = r"NameError: name 'nothing' is not defined \(mine\.py, line 8\)"
    assert re.fullmatch(rf"hebbbench: rule 'mine' at layer 'body\.fc1': {said}\. .*\n", err)


def test_behind_a_rule_that_failed_its_check_is_suggested(lab, call):
    raises = lab.rule("raises", "weight: raise ValueError('on purpose')")
    wild = lab.rule("wild", "weight: return weight * float('nan')")
    _, out, _ = call("run", "-p", lab.protocol_file(), "-r", raises, "-r", "random", "-r", wild)
    assert f"Next:   hebbbench check {raises} {wild}\n" in out
    assert "--seed all" not in out


def test_a_diverged_cell_gives_a_status_of_one_and_is_not_run_again(lab, call, trained):
    boom = lab.rule("boom", "weight: return weight * float('nan')")
    for _ in range(2):
        code, out, err = call("run", "-p", lab.protocol_file(), "-r", boom)
        assert (code, err) == (1, "")
        assert re.search(r"diverged: diverged between steps 1 and \d+, in body\.fc1\.weight", out)
    assert trained == ["boom 0"]


def test_a_failed_cell_is_run_again(lab, call, trained):
    raises = lab.rule("raises", "weight: raise ValueError('on purpose')")
    for _ in range(2):
        assert call("run", "-p", lab.protocol_file(), "-r", raises)[0] == 1
    assert trained == ["raises 0", "raises 0"]


def test_a_full_disk_is_one_line_and_leaves_no_part_of_a_file(lab, call, monkeypatch):
    path = lab.protocol_file()
    call("run", "-p", path, "-r", "random", "-s", "1")  # decodes the data

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = call("run", "-p", path, "-r", "random")
    assert code == 2
    assert re.fullmatch(r"hebbbench: .*seed-0\.json cannot be written: No space left on device\..*\n", err)
    assert stored(lab.root / "runs") == ["tiny/random/seed-1.json"]
    assert not [path for path in (lab.root / "runs").rglob("*") if path.is_file() and path.suffix != ".json"]


def test_a_results_folder_below_a_file_is_refused_before_training(lab, call, trained):
    (lab.root / "file").write_text("")
    code, _, err = call("run", "-p", lab.protocol_file(), "-r", "bp", "--results", lab.root / "file" / "x")
    assert code == 2
    assert "cannot be written" in err
    assert trained == []


def test_an_interruption_outside_training_says_so_and_exits_with_130(lab, call, monkeypatch):
    def interrupt(self, identity):
        raise KeyboardInterrupt

    monkeypatch.setattr(course.Course, "result", interrupt)
    code, _, err = call("run", "-p", lab.protocol_file(), "-r", "bp")
    assert code == 130
    assert "hebbbench: stopped" in err


# The card


def test_a_result_holds_the_rules_card_and_its_numbers_do_not_depend_on_it(lab, call, monkeypatch):
    measured = []
    original = checks.measured_card

    def spy(rule: str) -> Card:
        measured.append(rule)
        return original(rule)

    monkeypatch.setattr(checks, "measured_card", spy)
    gradient = lab.rule("gradient", "grad: return -grad * (1 + 1e-7)")
    tiny = lab.protocol(changes={"name": "tiny"})
    bare = [lab.run(lab.cell(gradient, tiny, seed)) for seed in (0, 1)]
    code, out, err = call("run", "-p", lab.protocol_file(), "-r", gradient, "-s", "0-1")
    assert (code, err, measured) == (0, "", [gradient])
    results = [store.load(lab.root / "runs" / "tiny" / "gradient" / f"seed-{seed}.json") for seed in (0, 1)]
    assert [result.measurement() for result in results] == [result.measurement() for result in bare]
    assert [badges(result.card) for result in results] == [badges(cards.card("bp"))] * 2
    assert [result.card for result in bare] == [None, None]
    assert "warning" not in out


@pytest.mark.parametrize(
    ("delta", "why"),
    [
        ("weight: return torch.randn_like(weight) * next(COUNT)", "the same two steps, run again, gave another update"),
        ("weight: return weight * (1 / (len(weight) - 40))", "ZeroDivisionError"),
    ],
)
def test_a_card_that_cannot_be_measured_costs_a_line_and_not_the_result(lab, call, delta, why):
    path = Path(lab.rule("odd", delta))
    path.write_text(
        path.read_text().replace("import torch\n", "import torch\nimport itertools\nCOUNT = itertools.count(1)\n")
    )
    code, out, err = call("run", "-p", lab.protocol_file(), "-r", path)
    assert (code, err) == (0, "")
    assert re.search(rf"^  warning: no card can be measured of rule .*: {why}", out, flags=re.MULTILINE)
    result = store.load(lab.root / "runs" / "tiny" / "odd" / "seed-0.json")
    assert (result.status, result.card) == ("ok", None)


def test_a_stop_while_the_card_is_measured_keeps_the_result(lab, call, trained, monkeypatch):
    def interrupt(rule: str) -> Card:
        raise KeyboardInterrupt

    monkeypatch.setattr(checks, "measured_card", interrupt)
    arguments = ("run", "-p", lab.protocol_file(), "-r", lab.rule("mine", "grad: return -grad * 0.5"))
    assert call(*arguments)[0] == 130
    assert stored(lab.root / "runs") == ["tiny/mine/seed-0.json"]
    assert lab.checkpoints() == []
    assert call(*arguments)[0] == 0
    assert trained == ["mine 0"]


def test_a_rule_edited_while_its_cell_ran_leaves_no_card(lab, call, monkeypatch):
    path = Path(lab.rule("mine", "grad: return -grad"))
    result = course.Course.result

    def edited(self, identity):
        found = result(self, identity)
        path.write_text(path.read_text().replace("-grad", "-2 * grad"))
        return found

    monkeypatch.setattr(course.Course, "result", edited)
    code, out, _ = call("run", "-p", lab.protocol_file(), "-r", path)
    assert code == 0
    assert "warning: the file of rule" in out
    assert store.load(lab.root / "runs" / "tiny" / "mine" / "seed-0.json").card is None


def test_the_library_measures_the_card_too(lab):
    result = hebbbench.run(lab.protocol(), "oja", results=lab.results)
    assert result.card == cards.card("oja")
    assert store.load(lab.results / "digits-mlp" / "oja" / "seed-0.json") == result


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"has 2 cells of rule 'random' at axes = \{\}, .* Name a value for each axis: width: \[0\.0, 0\.5\]"),
        ({"axes": {"width": 3}}, "axis width = 3 is not in protocol 'digits-mlp'"),
        ({"seed": "0"}, "seed = '0' is no whole number"),
        ({"seed": -1}, "seed = -1 is no whole number"),
        ({"recipe": {"provenance": "default", "epoch": 3}}, "recipe: unknown key 'epoch'. Did you mean 'epochs'"),
    ],
)
def test_from_python_too_a_mistake_is_told_before_anything_is_trained(lab, trained, arguments, message):
    with pytest.raises(HebbBenchError, match=message):
        hebbbench.run(lab.protocol("digits-mlp", AXIS), "random", **arguments)
    assert trained == []


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "-p", "digits-mpl", "-r", "bp"), "no protocol 'digits-mpl'. Did you mean 'digits-mlp'?"),
        (("run", "-p", "digits-mlp", "-r", "softheb"), "no rule 'softheb'. Did you mean 'softhebb'?"),
        (("run", "-p", "digits-mlp", "-r", "nothing.py"), "no rule file nothing.py here: "),
        (("run", "-p", "nothing.yaml", "-r", "bp"), "nothing.yaml cannot be read: No such file"),
        (("run", "-p", "digits-mlp", "-r", "bp", "-s", "x"), "seed 'x' is not a number, a range such as 0-4, or 'all'"),
        (("run", "-p", "digits-mlp", "-r", "bp", "-s", "4-0"), "4-0"),
        (("run", "-p", "digits-mlp", "-r", "bp", "--axis", "width=3"), "has no axis 'width'. Its axes: none"),
        (("run", "-p", "tiny.yaml", "-r", "bp", "--axis", "widht=3"), "has no axis 'widht'. Its axes: width"),
        (("run", "-p", "tiny.yaml", "-r", "bp", "--axis", "width=3"), "width = '3' is not in protocol 'tiny'"),
        (
            ("run", "-p", "tiny.yaml", "-r", "bp", "--axis", "width"),
            "--axis 'width' is not name=value. The axes: width",
        ),
        (("run", "-p", "digits-mlp", "-r", "bp", "--jobs", "2"), "--jobs needs --executor"),
        (("run", "-p", "digits-mlp", "-r", "bp", "--sbatch", "a=b"), "--sbatch needs --executor slurm"),
        (
            ("run", "-p", "digits-mlp", "-r", "bp", "--executor", "local", "--sbatch", "a=b"),
            "--sbatch needs --executor slurm",
        ),
        (("run", "-p", "digits-mlp", "-r", "bp", "--device", "gpu"), "device 'gpu' cannot be used here"),
        (
            ("run", "-p", "digits-mlp", "-r", "bp", "--device", "gpu", "--executor", "local"),
            "device 'gpu' cannot be used here",
        ),
        (("run", "-p", "digits-mlp", "-r", "bp", "--device", "cuda:99", "--executor", "local"), "device 'cuda:99' "),
        (("show", "rule", "gl"), "no rule 'gl'. Did you mean 'ghl'?"),
        (("show", "protocol", "mnist"), "no protocol 'mnist'. Did you mean 'mnist-mlp'?"),
        (("data", "verify", "digit"), "no dataset 'digit'. Did you mean 'digits'?"),
        (
            ("run", "-p", "lists.yaml", "-r", "bp"),
            "axes.width.values.0 = [16, 12] must be a number, text or",
        ),
        (("run", "-p", "tiny.yaml", "-r", "untyped.py"), "`tau = 1.0` has no type. Write tau: float = 1.0 for"),
        (("check", "untyped.yaml"), "no rule 'untyped.yaml'"),
        (("validate", "nope"), "there is no file or folder nope here, nor a results folder results."),
        (
            ("validate", "tiny.yaml"),
            "tiny.yaml is looked at as part of a results folder, and there is no folder results.",
        ),
        (("tune", "-p", "digits-mlp", "-r", "bp", "--try", "optimizer.rate=1"), "unknown key 'rate'"),
        (
            ("tune", "-p", "digits-mlp", "-r", "bp", "--try", "optimizer.lr=a"),
            "search: optimizer.lr = 'a' must be a number or a list\n",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_it_and_a_status_of_two(lab, call, arguments, message):
    path = Path(lab.protocol_file("digits-mlp", AXIS))
    text = path.read_text().replace("name: tiny", "name: lists")
    path.with_name("lists.yaml").write_text(re.sub(r"values:\n +- 0\.0\n +- 0\.5\n", "values: [[16, 12]]\n", text))
    lab.rule("untyped", "grad: return -grad", "    tau = 1.0\n")
    code, _, err = call(*arguments)
    assert code == 2
    assert message in err
    assert err.startswith("hebbbench: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_a_mistake_in_the_last_rule_is_found_before_the_first_is_run(lab, call, trained):
    broken = lab.root / "broken.py"
    broken.write_text("import no_such_module\n")
    for last in ("softheb", str(broken)):
        assert call("run", "-p", lab.protocol_file(), "-r", "bp", "-r", last)[0] == 2
    assert trained == []


def test_a_rule_file_that_cannot_be_imported_is_told_by_a_dry_run_as_by_a_run(lab, call):
    path = lab.root / "broken.py"
    for text, said in (
        ("import nothing_here\n", f"{path} cannot be imported: ModuleNotFoundError: No module named 'nothing_here'"),
        ("from hebbbench import Rule\n", f"{path} must define exactly one public rule class; it defines none."),
    ):
        path.write_text(text)
        arguments = ("run", "-p", lab.protocol_file(), "-r", "bp", "-r", path)
        assert call(*arguments, "--dry-run") == call(*arguments) == (2, "", f"hebbbench: {said}\n")


def test_a_protocol_file_with_a_typo_is_refused_by_key(lab, call):
    path = Path(lab.protocol_file())
    path.write_text(path.read_text().replace("epochs:", "epoch:", 1))
    code, _, err = call("run", "-p", path, "-r", "bp")
    assert code == 2
    assert re.search(r"tiny\.yaml: .*unknown key 'epoch' in '\w+'\. Did you mean 'epochs'\?", err)


# What a person sees


def test_output_in_a_file_is_short_and_plain(lab, call):
    path = lab.protocol_file("digits-mlp", {"training.epochs": 5})
    _, out, _ = call("run", "-p", path, "-r", "bp", "-r", "softhebb", "-s", "0-2")
    assert "\r" not in out
    assert "\x1b" not in out
    assert len(out.splitlines()) < 60
    assert max(map(len, out.splitlines())) < 250


def test_a_run_from_a_shell_gives_the_same_words(lab):
    """The installed command, as a process: exit statuses reach the shell, and nothing but text reaches a file."""
    environ = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TERM": "xterm-256color", "FORCE_COLOR": ""}
    raises = lab.rule("raises", "weight: raise ValueError('x')")
    arguments = ["run", "-p", lab.protocol_file(), "-r", "bp", "-r", raises]
    done = subprocess.run(
        [sys.executable, "-m", "hebbbench", *arguments],
        cwd=lab.root, env=environ, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == b""
    assert b"\r" not in done.stdout
    assert b"\x1b" not in done.stdout
    assert done.stdout.count(b"\n") < 60


def test_the_commands_a_run_suggests_exist(lab, call):
    _, out, _ = call("run", "-p", lab.protocol_file(), "-r", "random")
    suggested = re.findall(r"^(?:Next:|) +hebbbench (\w+) (.*)$", out, flags=re.MULTILINE)
    assert {name for name, _ in suggested} >= {"run", "leaderboard"}
    for name, arguments in suggested:
        if name == "leaderboard":
            assert call(name, *arguments.split())[0] == 0


def test_what_a_run_suggests_for_a_protocol_or_rule_in_a_file_can_be_run_as_it_stands(lab, call):
    path = lab.protocol_file()
    _, out, _ = call("run", "-p", path, "-r", lab.rule("mine", "grad: return -grad"), "--results", "my runs")
    suggested = re.findall(r"hebbbench ((?:run|leaderboard) .*)$", out, flags=re.MULTILINE)
    assert len(suggested) == 2
    for command in suggested:
        code, _, err = call(*shlex.split(command.replace("--seed all", "--seed 0")))
        assert (code, err) == (0, "")


@pytest.mark.parametrize("command", ["--help", "-h", "run --help", "list --help", "tune --help"])
def test_help_exits_with_zero(call, command):
    code, out, _ = call(*command.split())
    assert code == 0
    assert "Usage" in out


def test_help_does_not_import_torch():
    script = (
        "import sys; sys.argv = ['hebbbench', '--help']\nfrom hebbbench.cli import main\n"
        "try: main()\nexcept SystemExit: pass\nprint([m for m in sys.modules if m.split('.')[0] in ('torch', 'scipy')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["list protocols", "list architectures", "list datasets", "data status"])
def test_lists_have_a_line_for_each(call, command):
    names = {
        "list protocols": registry.protocol_names(),
        "list architectures": registry.architecture_names(),
    }.get(command, ["digits", "mnist", "cifar10", "cifar100"])  # fmt: skip
    code, out, err = call(*command.split())
    assert (code, err) == (0, "")
    lines = [line.split(" ")[0] for line in out.splitlines()]
    assert all(lines.count(name) == 1 for name in names)


@pytest.mark.parametrize("columns", [None, "80", "100"])
def test_the_list_of_datasets_fits_the_terminal(call, monkeypatch, columns):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    _, out, _ = call("data", "status")
    assert 70 < max(map(len, out.splitlines())) <= int(columns or 120)
    assert "torchvision's cifar-10-batches-py" in " ".join(out.split())


@pytest.mark.parametrize("name", registry.rule_names())
def test_every_rule_can_be_shown(call, name):
    code, out, err = call("show", "rule", name)
    assert (code, err) == (0, "")
    assert registry.summary(name) in out
    assert registry.rule_source_hash(name) in out
    assert all(signal in out for signal in registry.rule(name).signals)
    assert cards.card(name).text() in out


@pytest.mark.parametrize("name", registry.protocol_names())
def test_every_protocol_can_be_shown(call, name):
    code, out, err = call("show", "protocol", name)
    assert (code, err) == (0, "")
    protocol = registry.protocol(name)
    assert protocol.hash in out
    assert re.search(r"^body\.\w+ .* (plastic|both)$", out, flags=re.MULTILINE)
    for item in protocol.published:
        figure = f"{item.value:.2%}".replace("%", " %") if "accuracy" in item.metric else f"{item.value:.2f}"
        point = " ".join(f"{name}={value}" for name, value in sorted(item.axes.items()))
        row = rf"^{item.rule} +{re.escape(point)} *{re.escape(item.metric)} +{figure}( ± [\d.]+)? +\[\d+\]$"
        assert re.search(row, out, flags=re.MULTILINE), row
        assert item.source in out
    assert set(protocol.rules or registry.rule_names()) <= {line.split(" ")[0] for line in out.splitlines()}


def test_a_protocols_page_says_nothing_of_what_it_has_not(call):
    _, teacher, _ = call("show", "protocol", "sre-mlp")
    _, images, _ = call("show", "protocol", "digits-mlp")
    for word in ("\ninput ", "\nprobe ", "augmentation", "validation", "mean []", "{}"):
        assert word not in teacher
    assert "\ninput     (pixel/255 − mean)/std, mean [" in images
    assert "\nprobe     {epochs: " in images


def test_a_rule_in_a_file_can_be_shown(lab, call):
    code, out, _ = call("show", "rule", lab.rule("mine", "grad: return -grad", "    tau: float = 2.5\n"))
    assert code == 0
    assert "Made by a test." in out
    assert re.search(r"tau +float +2\.5", out)
    assert re.search(r"labels +used", out)


def test_a_rule_whose_card_cannot_be_measured_is_shown_with_the_reason(lab, call):
    code, out, _ = call("show", "rule", lab.rule("wild", "weight: return torch.randn_like(weight) * float('inf')"))
    assert code == 0
    assert re.search(r"Plausibility, not measured\n  no card can be measured of rule .*wild\.py'", out)


@pytest.mark.parametrize("kind", ["protocol", "recipes", "result"])
def test_schemas_are_printed_as_json(call, kind):
    code, out, _ = call("schema", kind)
    assert code == 0
    assert "properties" in json.loads(out)


# The board and the results


def test_a_board_is_written_checked_and_found_stale(lab, call):
    lab.run(lab.cell("random", registry.protocol("digits-mlp"), epochs=0), results=lab.results)
    common = ("leaderboard", "--results", lab.results, "-o", "BOARD.md")
    code, _, err = call(*common, "--check")
    assert code == 1
    assert "BOARD.md does not exist" in err
    assert call(*common)[0] == 0
    assert call(*common, "--check")[0] == 0
    board = lab.root / "BOARD.md"
    board.write_text(board.read_text().replace("random", "rendom", 1))
    code, _, err = call(*common, "--check")
    assert code == 1
    assert "rendom" in err
    assert call(*common)[0] == 0
    assert "rendom" not in board.read_text()
    (result,) = lab.results.rglob("*.json")
    result.unlink()
    assert call(*common, "--check")[0] == 1


@pytest.mark.parametrize("command", [("leaderboard",), ("leaderboard", "--check"), ("validate",)])
def test_a_results_folder_that_is_not_there_is_a_mistake_and_no_empty_board(lab, call, command):
    board = lab.root / "LEADERBOARD.md"
    board.write_text("the board of another folder")
    code, out, err = call(*command, "--results", "reslts")
    assert (code, out) == (2, "")
    assert "there is no results folder reslts" in err
    assert "--results" in err
    assert board.read_text() == "the board of another folder"


def test_the_number_on_the_board_is_the_one_in_the_file(lab, call):
    result = lab.run(lab.cell("random", registry.protocol("digits-mlp"), epochs=0), results=lab.results)
    _, out, _ = call("leaderboard", "--results", lab.results, "-o", "-")
    assert f"{100 * result.metrics['probe.test.accuracy'].value:.2f}" in out


def test_one_protocols_part_of_the_board_is_printed_also_of_a_protocol_of_ones_own(lab, call):
    tiny = lab.protocol_file()
    lab.run(lab.cell("random", registry.protocol("digits-mlp"), epochs=0), results=lab.results)
    call("run", "-p", tiny, "-r", "random", "--results", lab.results)
    shown = ("leaderboard", "--results", lab.results, "-o", "-")
    assert re.findall("^## (.*)$", call(*shown, "-p", tiny)[1], flags=re.MULTILINE) == ["The columns", "tiny"]
    code, out, _ = call(*shown, "-p", "digits-mlp", "-p", tiny)
    assert code == 0
    assert re.findall("^## (.*)$", out, flags=re.MULTILINE) == ["The columns", "digits-mlp", "tiny"]
    assert out.count("[random](results/") == 2
    assert f"hebbbench run --protocol {tiny} --rule random --seed 1-4" in out
    code, _, err = call("leaderboard", "--results", lab.results, "-p", tiny)
    assert (code, (lab.root / "LEADERBOARD.md").exists()) == (2, False)
    assert "--output -" in err


def test_results_are_validated(lab, call):
    lab.run(lab.cell("random", registry.protocol("digits-mlp"), epochs=0), results=lab.results)
    code, out, _ = call("validate", "--results", lab.results)
    assert code == 0
    (path,) = lab.results.rglob("*.json")
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 5'))
    code, out, _ = call("validate", "--results", lab.results)
    assert code == 1
    assert "holds the cell that belongs at" in out
    path.write_text("{")
    code, out, _ = call("validate", path, "--results", lab.results)
    assert code == 1
    assert "not valid JSON" in out


def test_a_damaged_file_is_named_beside_what_the_others_say(lab, call):
    for rule in ("random", "bp"):
        for seed in (0, 1):
            cell = lab.cell(rule, registry.protocol("digits-mlp"), seed, epochs=0)
            lab.run(cell, results=lab.results)
    path = lab.results / "digits-mlp" / "bp" / "seed-1.json"
    path.write_text("{")
    for command in (("compare", "bp", "random"), ("explain", "digits-mlp", "random"), ("explain", "digits-mlp", "bp")):
        _, out, err = call(*command, "--results", lab.results)
        assert re.match(rf"warning: {path} is not valid JSON: .* Delete it and run the cell again\.\n", err)
        assert (err + out).count("warning") == 1


@pytest.fixture
def close(monkeypatch):
    """close(folder): nobody may look into it. By what the system answers, for root may look into anything."""

    def close(folder: Path) -> None:
        def guarded(function, itself=True):
            def ask(path=".", *arguments, **options):
                whole = Path(path) if isinstance(path, str | Path) else Path()
                if folder in whole.parents or (itself and whole == folder):
                    raise PermissionError(13, "Permission denied", os.fspath(path))
                return function(path, *arguments, **options)

            return ask

        monkeypatch.setattr(os, "scandir", guarded(os.scandir))
        monkeypatch.setattr(io, "open", guarded(io.open))
        monkeypatch.setattr(os, "stat", guarded(os.stat, itself=False))

    return close


def test_a_folder_that_is_closed_is_named_and_not_passed_over(lab, call, trained, close):
    for rule in ("random", "bp"):
        lab.run(lab.cell(rule, registry.protocol("digits-mlp"), epochs=0), results=lab.results)
    tiny = lab.protocol_file()
    call("run", "-p", tiny, "-r", "bp", "--results", lab.results)
    closed = lab.results / "digits-mlp" / "bp"
    close(closed)
    code, out, _ = call("validate", "--results", lab.results)
    assert code == 1
    assert f"{closed}: cannot be read: Permission denied\n" in out
    assert "3 checked, 1 with a problem" in out
    board = call("leaderboard", "--results", lab.results, "-o", "-")[1]
    assert "`bp`: cannot be read: Permission denied." in board
    assert f"left out: {closed} cannot be read" in call("compare", lab.results, closed.parent, "-p", "digits-mlp")[1]
    trained.clear()
    code, _, err = call("run", "-p", "digits-mlp", "-r", "bp", "--results", lab.results)
    assert (code, trained) == (2, [])
    assert err == f"hebbbench: {closed}/seed-0.json cannot be read: Permission denied.\n"
    code, _, err = call("validate", closed / "seed-0.json", "--results", lab.results)
    assert (code, err.count("\n")) == (2, 1)
    assert f"hebbbench: {closed}/seed-0.json cannot be reached: Permission denied. Give permission" in err


def test_a_results_folder_that_is_closed_is_a_mistake(lab, call, close):
    lab.run(lab.cell("random", registry.protocol("digits-mlp"), epochs=0), results=lab.results)
    close(lab.results)
    for command in ("validate", "leaderboard"):
        code, out, err = call(command, "--results", lab.results)
        assert (code, out) == (2, "")
        assert f"the folder {lab.results} cannot be read: Permission denied." in err


def test_a_folder_without_results_holds_none(lab, call):
    lab.run(lab.cell("random", registry.protocol("digits-mlp"), epochs=0), results=lab.results)
    (lab.results / "empty").mkdir()
    code, out, _ = call("validate", lab.results / "empty", "--results", lab.results)
    assert (code, out) == (0, "0 checked, 0 with a problem.\n")


def test_a_result_of_another_folder_is_told_from_a_missing_one(lab, call):
    lab.run(lab.cell("random", registry.protocol("digits-mlp"), epochs=0), results=lab.results)
    (lab.root / "other").mkdir()
    code, out, _ = call("validate", lab.results, lab.root / "gone.json", "--results", "other")
    assert code == 1
    assert "seed-0.json: lies outside the results folder other; name another with --results" in out
    assert "gone.json: is no JSON file under the results folder other" in out


def test_data_can_be_prepared_and_verified(call):
    code, out, _ = call("data", "prepare", "digits")
    assert code == 0
    assert "digits is ready" in out
    code, out, _ = call("data", "verify", "digits")
    assert code == 0
    assert out.count("as pinned") == 2


# Progress


def test_plain_progress_is_a_line_at_the_end_and_one_an_interval(monkeypatch, capsys):
    from hebbbench import progress

    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    plain = progress.Plain(interval=15)
    plain.phase("training", 100)
    for _ in range(100):
        clock[0] += 1
        plain.advance(1, "loss 0.5")
    plain.say("a line")
    plain.phase("probing", 10, done=5)
    plain.advance(5)
    plain.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  training: 15/100, 1 min 25 s left  loss 0.5"
    assert len(lines) == 6 + 3
    assert lines[-3:] == ["a line", "  training: done in 1 min 40 s  loss 0.5", "  probing: done in 0.0 s"]


def test_before_the_first_step_is_done_no_time_is_foretold(monkeypatch, capsys):
    from hebbbench import progress

    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    plain = progress.Plain(interval=15)
    plain.phase("searching", 3)
    clock[0] += 20
    plain.advance(0, "seed 1000: training 7/9")
    assert capsys.readouterr().out == "  searching: 0/3  seed 1000: training 7/9\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (12.4, "12 s"),
        (59.7, "1 min 00 s"),
        (185, "3 min 05 s"),
        (51600, "14 h 20 min"),
        (359940, "99 h 59 min"),
        (777600, "9 days"),
        (8.2e9, "260 years"),
    ],
)
def test_durations_are_said_as_a_person_says_them(seconds, text):
    from hebbbench.progress import duration

    assert duration(seconds) == text


def test_progress_reaches_the_end_of_every_phase(lab: Lab):
    totals: dict[str, int] = {}

    class Count(At):
        def phase(self, name, total, done=0):
            super().phase(name, total, done)
            totals[name] = total - done

        def advance(self, steps=1, note=""):
            totals[self.current] -= steps

    lab.run(lab.cell("bp"), Count())
    assert set(totals) >= {"training", "extracting features", "linear probe", "test"}
    assert set(totals.values()) == {0}


def test_a_folder_of_results_may_begin_at_home(lab, call, monkeypatch):
    monkeypatch.setenv("HOME", str(lab.root / "home"))
    assert call("run", "-p", lab.protocol_file(), "-r", "random", "--results", "~/own")[0] == 0
    assert stored(lab.root / "home" / "own") == ["tiny/random/seed-0.json"]


def test_a_place_that_cannot_be_written_is_told_before_anything_is_trained(lab, call, trained):
    (lab.root / "runs" / "tiny").mkdir(parents=True)
    (lab.root / "runs" / "tiny" / "bp").write_text("")
    code, _, err = call("run", "-p", lab.protocol_file(), "-r", "bp")
    assert (code, trained) == (2, [])
    assert "tiny/bp cannot be written" in err


@pytest.mark.parametrize("more", [(), ("--executor", "local")])
def test_a_cache_without_room_for_checkpoints_is_told_before_anything_is_trained(lab, call, trained, more):
    protocol = lab.protocol_file()
    assert call("data", "prepare", "digits")[0] == 0
    for name in ("checkpoints", "jobs"):
        (lab.cache / name).write_text("")
    code, _, err = call("run", "-p", protocol, "-r", "bp", *more)
    assert (code, trained, stored(lab.root / "runs")) == (2, [], [])
    assert re.fullmatch(rf"hebbbench: the cache folder {lab.cache}/\w+ cannot be written: .* with --cache\.\n", err)


def test_a_cell_that_is_done_asks_nothing_of_the_cache(lab, call, trained):
    arguments = ("run", "-p", lab.protocol_file(), "-r", "bp")
    call(*arguments)
    (lab.cache / "checkpoints").rmdir()
    (lab.cache / "checkpoints").write_text("")
    assert call(*arguments)[0] == 0
    assert trained == ["bp 0"]
