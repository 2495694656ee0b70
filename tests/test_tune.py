"""The search for a recipe: on the validation split, with its cost written down, and never on the test split."""

from __future__ import annotations

import signal

import pytest
import torch
import yaml

from conftest import At, Killed, Lab
from hebbbench import registry
from hebbbench.data.dataset import Dataset
from hebbbench.errors import NothingScored, ProtocolError, RunInterrupted
from hebbbench.recipe import Recipe, RecipeFile, Search, resolve
from hebbbench.training import trial
from hebbbench.training.course import Course
from hebbbench.training.measured import Measured
from hebbbench.training.run import Settings
from hebbbench.training.tune import TUNING_SEEDS, Trial, _with, at_the_edge, fixed_axes, parse_space, search


@pytest.fixture(autouse=True)
def sealed(monkeypatch):
    def refuse(dataset: Dataset):
        raise AssertionError("the test split was opened")

    monkeypatch.setattr(Dataset, "open_test", refuse)


def look(
    lab: Lab, rule: str, space: dict, seeds=TUNING_SEEDS[:1], changes=None, out: At | None = None, axes=None
) -> tuple[Recipe, list[Trial], list[str]]:
    """The best recipe, all trials, and the lines that were said while searching."""
    out, settings = out or At(), Settings(device="cpu", cache=lab.cache)
    recipe, trials = search(lab.protocol("digits-mlp", changes), rule, space, settings, seeds, out, axes)
    return recipe, trials, out.said


def forget(lab: Lab) -> None:
    """Remove what the cache has of earlier trials."""
    for path in (lab.cache / "tuning").glob("*"):
        path.unlink()


def test_the_best_of_every_combination_is_kept_with_what_it_cost(lab):
    space = {"optimizer.lr": [1e-6, 0.05], "optimizer.momentum": [0.0, 0.9]}
    recipe, trials, told = look(lab, "bp", space, TUNING_SEEDS[:2])
    assert [tuple(trial.choice.values()) for trial in trials] == [(1e-6, 0.0), (1e-6, 0.9), (0.05, 0.0), (0.05, 0.9)]
    assert [line.rpartition(" (")[0] for line in told] == [f"[{n}/4] {trial}" for n, trial in enumerate(trials, 1)]
    best = max(trials, key=lambda trial: trial.score)
    assert (recipe.optimizer.lr, recipe.optimizer.momentum) == tuple(best.choice.values())
    assert recipe.provenance == "searched"
    assert (recipe.search.trials, recipe.search.split) == (4 * 2, "validation")
    assert recipe.search.seconds > 0
    assert "optimizer.lr in [1e-06,0.05]" in recipe.search.space
    assert recipe.search.scores == {trial.name: round(trial.score, 4) for trial in trials}
    assert "optimizer.lr=0.05, " in " ".join(recipe.search.scores)
    old = {key: value for key, value in recipe.search.model_dump().items() if key != "scores"}
    assert Search.model_validate(old).model_dump() == old  # what was published without scores stays as it is
    assert resolve(lab.protocol(), recipe, "bp").training.optimizer == recipe.optimizer


def test_a_trials_score_is_the_mean_validation_accuracy_of_its_seeds(lab):
    _, (trial,), _ = look(lab, "bp", {"optimizer.lr": [0.05]}, TUNING_SEEDS[:2])
    # What the recipe of the rule for the protocol leaves open comes from the protocol, as in any run.
    from hebbbench import registry

    own = registry.recipe("bp", "digits-mlp").model_dump(exclude_none=True, exclude={"provenance", "search", "source"})
    own["optimizer"] = {**own.get("optimizer", {}), "lr": 0.05}
    cells = [lab.cell("bp", seed=seed, **own) for seed in TUNING_SEEDS[:2]]
    scores = [lab.run(cell, read_test=False).metrics["probe.validation.accuracy"].value for cell in cells]
    assert trial.score == sum(scores) / 2


def test_the_headline_decides_which_accuracy_is_searched(lab):
    _, (trial,), _ = look(lab, "bp", {"epochs": [2]}, changes={"headline": "end_to_end.test.accuracy"})
    _, (other,), _ = look(lab, "bp", {"epochs": [2]})
    assert trial.score != other.score


def test_no_protocol_ranks_the_seeds_of_the_search():
    from hebbbench import registry

    for name in registry.protocol_names():
        assert not set(registry.protocol(name).seeds) & set(TUNING_SEEDS)


def test_a_trial_that_diverges_is_told_and_does_not_win(lab):
    recipe, trials, _ = look(lab, "bp", {"optimizer.lr": [1e30, 0.05]})
    assert trials[0].score is None
    assert "diverged" in trials[0].reason
    assert recipe.search.scores["optimizer.lr=1e+30"] is None
    assert recipe.optimizer.lr == 0.05


def test_a_search_without_a_score_says_why(lab):
    with pytest.raises(NothingScored, match=r"no trial of rule 'bp' could be scored; the last said: diverged") as told:
        look(lab, "bp", {"optimizer.lr": [1e30]})
    assert told.value.exit_code == 1


def test_a_protocol_without_validation_samples_cannot_be_searched_and_is_told_so(lab):
    with pytest.raises(ProtocolError, match="validation"):
        look(lab, "bp", {"optimizer.lr": [0.1]}, changes={"data.validation": 0})


@pytest.mark.parametrize(
    ("rule", "space", "message"),
    [
        ("bp", {"optimizer.rate": [0.1]}, "unknown key 'rate' in 'optimizer'"),
        ("bp", {"optimizer.lr": [-1.0]}, r"optimizer\.lr = -1\.0"),
        ("bp", {"rest.lr": [0.1]}, "sets 'rest', which protocol 'digits-mlp' v1 freezes"),
        ("bp", {"epochs": [3000]}, "asks for epochs = 3000; protocol 'digits-mlp' allows at most"),
        ("ghl", {"hyperparameters.temp": [1.0]}, "has no hyper-parameter 'temp'"),
    ],
)
def test_what_a_recipe_may_not_choose_cannot_be_searched(lab, rule, space, message):
    from hebbbench.errors import HebbBenchError

    with pytest.raises(HebbBenchError, match=message):
        look(lab, rule, space)


@pytest.mark.parametrize(
    ("changes", "key", "message"),
    [
        (
            {"axes": {"rate": {"path": "training.optimizer.lr", "values": [0.1, 0.2]}}},
            "optimizer.lr",
            r"the axis 'rate' of protocol 'digits-mlp' sets it, to 0.1, 0.2. Choose one with --axis rate=",
        ),
        (
            {"axes": {"net": {"path": "architecture.options.dropout", "values": [0.1, 0.2]}}},
            "architecture.dropout",
            r"the axis 'net' of",
        ),
        ({"hyperparameters": {"temperature": 2.0}}, "hyperparameters.temperature", r"sets it, to 2.0. Leave it out"),
    ],
)
def test_what_the_protocol_or_an_axis_sets_cannot_be_searched(lab, changes, key, message):
    axes = {name: axis["values"][0] for name, axis in changes.get("axes", {}).items()}
    with pytest.raises(ProtocolError, match=message):
        look(lab, "ghl", {key: [0.1, 0.2]}, changes=changes, axes=axes)


def test_where_no_accuracy_is_scored_there_is_nothing_to_search_for():
    with pytest.raises(ProtocolError, match=r"measures alignment.fc2, which is no score"):
        search(registry.protocol("sre-mlp"), "bp", {"optimizer.lr": [0.1]}, Settings())


def test_the_rate_of_the_rest_is_tried_on_the_optimizer_that_stands_for_it(lab):
    optimizer = {"name": "adam", "lr": 0.01, "weight_decay": 0.1, "clip": 1.0}
    protocol = lab.protocol("digits-mlp", {"training.optimizer": optimizer, "training.rest": None})
    found = _with(protocol, {}, {"rest.lr": 0.5})
    assert (found.rest.name, found.rest.lr, found.rest.weight_decay, found.rest.clip) == ("adam", 0.5, 0.1, None)


def test_a_value_that_cannot_be_tried_is_refused_before_anything_is_trained(lab, monkeypatch):
    monkeypatch.setattr(trial, "run_cell", lambda *arguments, **options: pytest.fail("something was trained"))
    with pytest.raises(ProtocolError, match=r"optimizer\.lr = -1\.0"):
        look(lab, "bp", {"optimizer.lr": [0.1, -1.0]})


def test_a_search_leaves_no_result_and_no_checkpoint(lab):
    look(lab, "bp", {"optimizer.lr": [0.05]})
    assert lab.checkpoints() == []
    assert not list(lab.root.rglob("seed-*.json"))


def test_a_search_neither_reads_nor_moves_the_global_generator(lab):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    _, (first,), _ = look(lab, "bp", {"optimizer.lr": [0.05]})
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    forget(lab)
    _, (second,), _ = look(lab, "bp", {"optimizer.lr": [0.05]})
    assert first.score == second.score


# Stopped and taken up again


SPACE = {"optimizer.lr": [0.01, 0.05], "optimizer.momentum": [0.0, 0.9]}


@pytest.fixture
def trained(monkeypatch) -> list[int]:
    """The seeds of the cells that were really run, in order."""
    seeds: list[int] = []
    result = Course.result

    def spy(self, identity):
        seeds.append(self.cell.seed)
        return result(self, identity)

    monkeypatch.setattr(Course, "result", spy)
    return seeds


def die() -> None:
    raise Killed


@pytest.mark.parametrize(
    ("stop", "raised"), [(die, Killed), (lambda: signal.raise_signal(signal.SIGINT), RunInterrupted)]
)
def test_an_interrupted_search_goes_on_behind_its_finished_trials(lab, trained, stop, raised):
    whole = look(lab, "bp", SPACE, TUNING_SEEDS[:2])
    forget(lab)
    trained.clear()

    class Third(At):
        def say(self, text: str) -> None:
            super().say(text)
            self.within = None if len(self.said) == 2 else "never"

    with pytest.raises(raised):
        look(lab, "bp", SPACE, TUNING_SEEDS[:2], out=Third(12, stop, "never"))
    assert trained == [1000, 1001, 1000, 1001, 1000]
    recipe, trials, said = look(lab, "bp", SPACE, TUNING_SEEDS[:2])
    assert trained[5:] == [1000, 1001, 1000, 1001]
    assert [trial.score for trial in trials] == [trial.score for trial in whole[1]]
    assert recipe.optimizer == whole[0].optimizer
    ended = [line.endswith(", done before)") for line in said if line.startswith("[")]
    assert ended == [True, True, False, False]


def test_a_stop_at_the_very_end_of_a_cell_is_heeded_and_loses_nothing_of_it(lab, trained, monkeypatch):
    accuracy = Measured.accuracy

    def late(self, name: str, value: float, epoch: int) -> None:
        accuracy(self, name, value, epoch)
        if name == "probe.train" and len(trained) == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Measured, "accuracy", late)
    with pytest.raises(RunInterrupted):
        look(lab, "bp", {"optimizer.lr": [0.05]}, TUNING_SEEDS[:2])
    look(lab, "bp", {"optimizer.lr": [0.05]}, TUNING_SEEDS[:2])
    assert trained == [1000, 1001]


def test_a_search_done_before_costs_nothing_and_its_ledger_says_what_it_cost_then(lab, trained, monkeypatch):
    space = {"optimizer.lr": [1e30, 0.05]}
    first = look(lab, "bp", space)
    monkeypatch.setattr(trial, "run_cell", lambda *arguments, **options: pytest.fail("something was trained"))
    again = look(lab, "bp", space)
    assert again[:2] == first[:2]
    assert "diverged" in again[1][0].reason
    assert all(line.endswith(", done before)") for line in again[2])
    assert sum(trial.seconds for trial in again[1]) == pytest.approx(again[0].search.seconds, abs=0.05)
    assert again[0].search.seconds > 0


def test_another_value_rule_or_protocol_is_another_trial_and_one_more_value_costs_its_own(lab, trained):
    look(lab, "bp", {"optimizer.lr": [0.05]})
    look(lab, "bp", {"optimizer.lr": [0.05, 0.01]})
    assert len(trained) == 2
    look(lab, "sign", {"optimizer.lr": [0.05]})
    look(lab, "bp", {"optimizer.lr": [0.05]}, changes={"training.batch_size": 200})
    assert len(trained) == 4


def test_a_trial_that_failed_is_tried_again_and_a_damaged_file_is_none(lab, trained):
    raises = lab.rule("raises", "weight: raise ValueError('on purpose')")
    for _ in range(2):
        with pytest.raises(
            NothingScored, match=r"the last said: ValueError during training: on purpose \(raises\.py.*hebbbench check"
        ):
            look(lab, raises, {"optimizer.lr": [0.05]})
    assert len(trained) == 2
    look(lab, "bp", {"optimizer.lr": [0.05]})
    for path in (lab.cache / "tuning").glob("*"):
        path.write_text("{")
    look(lab, "bp", {"optimizer.lr": [0.05]})
    assert len(trained) == 4


def test_progress_is_one_phase_whose_note_says_where_the_cell_is(lab):
    class Notes(At):
        notes: list[str] = []

        def advance(self, steps: int = 1, note: str = "") -> None:
            super().advance(steps, note)
            self.notes.append(note)

    seen = Notes()
    look(lab, "bp", {"optimizer.lr": [0.05]}, TUNING_SEEDS[:2], out=seen)
    assert [name for name in seen.phases if not name.startswith("decoding")] == ["searching"]
    assert any(note.startswith("seed 1001: training ") for note in seen.notes)
    assert seen.notes[-1].startswith("best: ")


# Axes

WIDTHS = {"axes": {
    "dropout": {"path": "architecture.options.dropout", "values": [0.0, 0.5]},
    "decay": {"path": "training.optimizer.weight_decay", "values": [0.0, 0.1], "rules": ["sign"]},
}}  # fmt: skip


def test_where_a_protocol_has_axes_the_point_is_chosen_by_name(lab):
    protocol = lab.protocol("digits-mlp", WIDTHS)
    with pytest.raises(
        ProtocolError, match=r"varies for rule 'bp': dropout=0\.0, 0\.5\. .* as in --axis dropout=0\.0, or"
    ):
        fixed_axes(protocol, "bp", [])
    with pytest.raises(
        ProtocolError, match=r"rule 'sign': decay=0\.0, 0\.1\. .* --axis all for the mean over all 2 points"
    ):
        fixed_axes(protocol, "sign", ["dropout=0.5"])
    with pytest.raises(ProtocolError, match=r"dropout = '3' is not in"):
        fixed_axes(protocol, "bp", ["dropout=3"])
    assert fixed_axes(protocol, "bp", ["dropout=0.5"]) == {"dropout": 0.5}
    assert fixed_axes(protocol, "bp", ["all"]) == {}
    assert fixed_axes(protocol, "sign", ["decay=0.1", "all"]) == {"decay": 0.1}
    assert fixed_axes(lab.protocol(), "bp", []) == {}


def test_the_recipe_says_at_which_point_it_was_searched(lab):
    space = {"optimizer.lr": [0.05]}
    recipe, (trial,), _ = look(lab, "bp", space, changes=WIDTHS, axes={"dropout": 0.5})
    assert recipe.search.space == "optimizer.lr in [0.05]; at decay=0.0 dropout=0.5"
    assert recipe.search.trials == 1
    everywhere, (mean,), _ = look(lab, "bp", space, changes=WIDTHS)
    assert everywhere.search.space == "optimizer.lr in [0.05]; mean over decay=0.0 dropout=0.0, decay=0.0 dropout=0.5"
    other = look(lab, "bp", space, changes=WIDTHS, axes={"dropout": 0.0})[1][0]
    assert mean.score == pytest.approx((trial.score + other.score) / 2)
    with pytest.raises(ProtocolError, match=r"rule 'bp' is not measured at decay=0\.1 .* Leave it out of --axis"):
        look(lab, "bp", space, changes=WIDTHS, axes={"decay": 0.1})


def test_a_search_over_an_axis_is_refused_by_the_command_before_anything_is_trained(lab, monkeypatch, capsys):
    from hebbbench.cli import main

    monkeypatch.setattr(trial, "run_cell", lambda *arguments, **options: pytest.fail("something was trained"))
    arguments = ["tune", "-p", "cifar10-resnet", "-r", "bp", "--try", "optimizer.lr=0.1"]
    monkeypatch.setattr("sys.argv", ["hebbbench", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    err = capsys.readouterr().err
    assert "'cifar10-resnet' varies for rule 'bp': depth=20, 32, 44, 56, 110, 1202. " in err
    assert err.count("\n") == 1


# From the command line


def test_a_space_is_read_as_yaml():
    assert parse_space(["optimizer.lr=1e-3,0.1", "annealing=cosine", "hyperparameters.temperature=[1, 2.5],3"]) == {
        "optimizer.lr": [0.001, 0.1],
        "annealing": ["cosine"],
        "hyperparameters.temperature": [[1, 2.5], 3],
    }


@pytest.mark.parametrize("text", ["optimizer.lr", "optimizer.lr=", "=1"])
def test_a_space_without_key_or_values_is_refused_with_an_example(text):
    with pytest.raises(ProtocolError, match=r"is not key=v1,v2,… such as optimizer\.lr=0\.01,0\.1"):
        parse_space([text])


@pytest.mark.parametrize(
    ("texts", "message"),
    [(["epochs=2", "epochs=3"], "names epochs a second time"), (["epochs=2,2"], "repeats a value")],
)
def test_a_key_or_a_value_given_twice_is_refused(texts, message):
    with pytest.raises(ProtocolError, match=f"{message}\\. Give each key once, with each value once"):
        parse_space(texts)


def test_the_command_prints_a_recipe_that_can_be_used_as_it_stands(lab, monkeypatch, capsys):
    from hebbbench.cli import main

    path = lab.protocol_file("digits-mlp", {"free": ["optimizer", "epochs"]})
    arguments = ["tune", "-p", path, "-r", "bp", "--try", "optimizer.lr=0.01,0.05", "--seeds", "1", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["hebbbench", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capsys.readouterr()
    assert (left.value.code, err) == (0, "")
    head, _, text = out.partition("under recipes:\n")
    assert head.count("% on validation") == 2
    printed = RecipeFile.model_validate({"recipes": yaml.safe_load(text)}).recipes["tiny"]
    assert printed.provenance == "searched"
    assert printed.search.trials == 2
    assert resolve(lab.protocol("digits-mlp", {"name": "tiny"}), printed, "bp").training.optimizer.lr in (0.01, 0.05)


def test_the_ledger_counts_every_network_that_was_trained_at_every_axis_value(lab):
    axes = {"dropout": {"path": "architecture.options.dropout", "values": [0.0, 0.25, 0.5]}}
    recipe, _, _ = look(lab, "bp", {"optimizer.lr": [0.01, 0.05]}, TUNING_SEEDS[:2], {"axes": axes})
    assert recipe.search.trials == 2 * 2 * 3


@pytest.mark.parametrize(("best", "said"), [(0.01, "smallest"), (0.1, None), (1, "largest")])
def test_a_best_value_at_the_end_of_its_range_is_told(best, said):
    space = {"optimizer.lr": [0.1, 1, 0.01], "optimizer.momentum": [0], "annealing": ["constant", "cosine"]}
    fixed = {"optimizer.momentum": 0, "annealing": "cosine"}
    trials = [Trial({"optimizer.lr": rate, **fixed}, 0.5 + 0.1 * (rate == best), None) for rate in (0.1, 1, 0.01)]
    told = at_the_edge(space, [*trials, Trial({"optimizer.lr": 1, **fixed}, None, "diverged")])
    assert told == ([f"optimizer.lr = {best} is the {said} value tried: widen the range."] if said else [])
