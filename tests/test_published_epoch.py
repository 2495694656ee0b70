"""The best test epoch as papers print it: what a naive reading gives, after training, and nothing else changes."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from board_fixtures import board_results, make_sources, store_all
from conftest import At, Killed, Lab
from hebbbench import board, registry
from hebbbench.board.export import FIELDS, csv_text, json_text
from hebbbench.board.markdown import page
from hebbbench.data.dataset import Dataset
from hebbbench.errors import ProtocolError, RunInterrupted
from hebbbench.protocol import Protocol
from hebbbench.record.schema import PUBLISHED_EPOCH, Metric, Result
from hebbbench.training import probing
from hebbbench.training.features import accuracy
from hebbbench.training.learner import Learner
from hebbbench.training.loop import Loop
from hebbbench.training.probing import Probing
from hebbbench.training.tune import search

EPOCHS = 4
RECIPE: dict[str, Any] = {"optimizer": {"lr": 0.3, "momentum": 0.9}}
"""Fast and unsteady: the best epoch is not the last."""
BEST = {
    "published_epoch": "best", "data.validation": 0, "training.epochs": EPOCHS, "budget.epochs": EPOCHS,
    "architecture.options.widths": [4, 4, 4],
}  # fmt: skip


def make(lab: Lab, rule: str = "bp", changes: dict[str, Any] | None = None, **recipe: Any) -> Any:
    protocol = lab.protocol("digits-deephebb", {**BEST, **(changes or {})})
    return lab.cell(rule, protocol, **{**RECIPE, **recipe})


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def die() -> None:
    raise Killed


class Spy:
    """Scores every epoch on the test split as it ends, as a paper's script does; notes when the split is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scores: list[float] = []
        self.events: list[str] = []
        self.digests: list[str] = []
        self.learner: Learner | None = None
        close, run, open_test, read = Loop._close_epoch, Loop.run, Dataset.open_test, Probing._read_end_to_end

        def closing(loop: Loop, epochs: int, loss: float) -> None:
            close(loop, epochs, loss)
            self.events.append("epoch")
            self.learner = loop.learner
            self.digests.append(loop.learner.digest())
            kept = {name: value.clone() for name, value in loop.learner.model.state_dict().items()}
            self.states.append(kept)

        def opening(dataset: Dataset) -> Any:
            self.events.append("open")
            return open_test(dataset)

        def running(loop: Loop) -> None:
            run(loop)
            self.events.append("trained")

        def reading(own: Probing, test: Any, indices: torch.Tensor) -> None:
            model = own.learner.model
            last = {name: value.clone() for name, value in model.state_dict().items()}
            for state in self.states:
                model.load_state_dict(state)
                self.scores.append(accuracy(own.learner, test, indices))
            model.load_state_dict(last)
            read(own, test, indices)

        self.states: list[dict[str, torch.Tensor]] = []
        monkeypatch.setattr(Loop, "_close_epoch", closing)
        monkeypatch.setattr(Loop, "run", running)
        monkeypatch.setattr(Dataset, "open_test", opening)
        monkeypatch.setattr(Probing, "_read_end_to_end", reading)


@pytest.mark.parametrize("recipe", [{}, {"schedule": "layerwise", "epochs": 2}], ids=["joint", "layerwise"])
def test_it_is_the_best_of_all_epochs_scored_one_by_one_and_the_first_of_equals(lab, monkeypatch, recipe):
    with monkeypatch.context() as patch:
        spy = Spy(patch)
        result = lab.run(make(lab, **recipe))
    epochs = 6 if recipe else EPOCHS
    assert len(spy.scores) == epochs
    assert len(set(spy.digests)) == epochs
    best = result.metrics[PUBLISHED_EPOCH]
    assert (best.value, best.epoch) == (max(spy.scores), spy.scores.index(max(spy.scores)) + 1)
    assert best.split == "test"
    assert result.metrics["end_to_end.test.accuracy"].value == spy.scores[-1] <= best.value
    assert len(set(spy.scores)) > 1
    # The split is opened once, when training is over, and the trained network is there again.
    assert spy.events == ["epoch"] * epochs + ["trained", "open"]
    assert spy.learner is not None
    assert spy.learner.digest() == spy.digests[-1] == result.weights


def test_equal_epochs_give_the_first(lab, monkeypatch):
    scores = iter([0.5, 0.25, 0.75, 0.75, 0.5])  # of the trained network, then of every epoch
    monkeypatch.setattr(probing, "accuracy", lambda *given: next(scores))
    best = lab.run(make(lab)).metrics[PUBLISHED_EPOCH]
    assert (best.value, best.epoch) == (0.75, 2)


@pytest.mark.parametrize("validation", [0, 200])
def test_nothing_else_changes(lab, validation):
    held_out = {"data.validation": validation}
    plain = lab.run(make(lab, changes={"published_epoch": None, **held_out}))
    result = lab.run(make(lab, changes=held_out))
    assert {name: metric for name, metric in result.metrics.items() if name != PUBLISHED_EPOCH} == plain.metrics
    assert PUBLISHED_EPOCH in result.metrics
    assert (result.curves, result.weights) == (plain.curves, plain.weights)
    assert any("validation" in name for name in result.metrics) == bool(validation)
    assert result.data.samples.validation == validation
    assert lab.checkpoints() == []


def test_stopped_anywhere_a_cell_ends_with_the_same_metric(lab):
    cell = make(lab)
    whole = lab.run(cell)
    for number, phase in ((1, "training"), (7, "training"), (2, "linear probe"), (2, "test, epoch by epoch")):
        with pytest.raises(RunInterrupted):
            lab.run(cell, At(number, ctrl_c, phase))
        assert lab.run(cell).measurement() == whole.measurement(), (number, phase)
    with pytest.raises(Killed):  # behind the last checkpoint there are epochs that come once more
        lab.run(cell, At(14, die, "training"), every=0.0)
    assert lab.run(cell).measurement() == whole.measurement()
    assert lab.checkpoints() == []


def test_scores_survive_a_stop_or_a_kill_and_count_as_progress(lab):
    cell = make(lab)
    for _ in range(2):
        with pytest.raises(RunInterrupted) as stop:
            lab.run(cell, At(1, ctrl_c, "test, epoch by epoch"))
        assert "give it longer" not in str(stop.value)
    seen = At(phase="test, epoch by epoch")
    lab.run(cell, seen)
    assert seen.count == EPOCHS - 2
    with pytest.raises(Killed):
        lab.run(cell, At(EPOCHS - 1, die, "test, epoch by epoch"), every=0.0)
    again = At(phase="test, epoch by epoch")
    lab.run(cell, again)
    assert again.count == 2


def test_without_its_epochs_a_resumed_cell_says_so_and_gives_no_number(lab):
    cell = make(lab)
    with pytest.raises(RunInterrupted):
        lab.run(cell, At(11, ctrl_c, "training"))
    (folder,) = (path for path in lab.checkpoints() if path.is_dir())
    (folder / "1.pt").unlink()
    seen = At()
    result = lab.run(cell, seen)
    assert any("the network after epoch 1 is no longer in the cache" in text for text in seen.said)
    best = result.metrics[PUBLISHED_EPOCH]
    assert best.value is None
    assert "epoch 1 is missing from the cache or damaged; --force" in best.reason
    assert result.status == "ok"
    assert result.metrics["end_to_end.test.accuracy"].value is not None
    assert lab.checkpoints() == []


def test_a_damaged_epoch_gives_no_number_and_the_trained_network_stays(lab, monkeypatch):
    cell = make(lab)
    with pytest.raises(RunInterrupted):
        lab.run(cell, At(11, ctrl_c, "training"))
    (folder,) = (path for path in lab.checkpoints() if path.is_dir())
    content = (folder / "2.pt").read_bytes()
    (folder / "2.pt").write_bytes(content[:-9] + bytes([content[-9] ^ 0xFF]) + content[-8:])
    spy = Spy(monkeypatch)
    result = lab.run(cell)
    assert "epoch 2" in result.metrics[PUBLISHED_EPOCH].reason
    assert spy.learner is not None
    assert spy.learner.digest() == spy.digests[-1] == result.weights


def test_a_cell_that_begins_anew_takes_none_of_the_epochs_before(lab):
    cell = make(lab)
    whole = lab.run(cell)
    for force in (False, True):
        with pytest.raises(RunInterrupted):
            lab.run(cell, At(11, ctrl_c, "training"))
        (checkpoint,) = (path for path in lab.checkpoints() if path.is_file())
        (folder,) = (path for path in lab.checkpoints() if path.is_dir())
        (folder / f"{EPOCHS + 1}.pt").write_bytes((folder / "1.pt").read_bytes())
        if not force:
            checkpoint.unlink()
        gone = At(1, lambda folder=folder: (not folder.exists()) or pytest.fail("epochs of before are there"))
        assert lab.run(cell, gone, force=force).measurement() == whole.measurement()
        assert lab.checkpoints() == []


def test_a_local_rule_an_untrained_network_and_tuning_have_none(lab, monkeypatch):
    from hebbbench.training.epochs import Epochs

    monkeypatch.setattr(Epochs, "keep", lambda *given: pytest.fail("an epoch was kept"))
    assert PUBLISHED_EPOCH not in lab.run(make(lab, "softhebb", optimizer={"lr": 0.01})).metrics
    assert PUBLISHED_EPOCH not in lab.run(make(lab, "random", epochs=0)).metrics
    assert PUBLISHED_EPOCH not in lab.run(make(lab, epochs=0)).metrics
    assert PUBLISHED_EPOCH not in lab.run(make(lab), read_test=False).metrics


def test_the_key_stays_out_of_other_hashes_and_needs_a_probe(lab):
    plain = registry.protocol("digits-mlp")
    assert "published_epoch" not in plain.identity()
    whole = plain.model_dump(mode="json")
    assert Protocol.model_validate({**whole, "published_epoch": None}).hash == plain.hash
    assert Protocol.model_validate({**whole, "published_epoch": "best"}).hash != plain.hash
    with pytest.raises(ValueError, match="published_epoch"):
        Protocol.model_validate({**whole, "published_epoch": "last"})
    unread = {**whole, "published_epoch": "best", "probe": None, "headline": "end_to_end.test.accuracy"}
    with pytest.raises(ValueError, match="give the section 'probe'"):
        Protocol.model_validate(unread)


@pytest.mark.parametrize("network", ["deephebb", "fasthebb"])
def test_the_published_boards_differ_from_the_clean_ones_in_what_they_say_alone(network):
    clean, published = (registry.protocol(f"cifar10-{network}-{kind}") for kind in ("bf16", "published"))
    ours, theirs = clean.identity(), published.identity()
    assert theirs.pop("published_epoch") == "best"
    assert (ours["data"].pop("validation"), theirs["data"].pop("validation")) == (5000, 0)
    for own in (ours, theirs):
        del own["name"], own["seeds"]
    assert ours == theirs
    assert f"cifar10-{network}-bf16" in published.description
    for rule in {*published.controls, *(entry.rule for entry in published.published)}:
        assert registry.recipe(rule, published.name) == registry.recipe(rule, clean.name), rule


def test_tuning_without_validation_samples_names_the_remedy():
    from hebbbench.training.run import Settings

    published = registry.protocol("cifar10-deephebb-published")
    with pytest.raises(ProtocolError, match=r"data\.validation = 0.* holds some out, and copy the recipe"):
        search(published, "bp", {"optimizer.lr": [0.1]}, Settings())


def test_the_board_shows_it_unranked_in_every_form(tmp_path: Path) -> None:
    def with_best(result: Result) -> Result:
        found = {PUBLISHED_EPOCH: Metric(value=0.9876, split="test", epoch=5)}
        return result.model_copy(update={"metrics": result.metrics | found})

    plain, marked = tmp_path / "plain", tmp_path / "marked"
    store_all(board_results(), plain)
    store_all([with_best(r) if r.rule.name == "bp" and r.status == "ok" else r for r in board_results()], marked)
    without, shown = (board.collect(make_sources(folder)) for folder in (plain, marked))
    head = " best test epoch % (as published) "
    assert head not in page(without)
    assert head in page(shown)
    assert "98.76" in page(shown)
    assert [row.tier for table in shown.tables for row in table.rows] == [
        row.tier for table in without.tables for row in table.rows
    ]
    assert "best_epoch" in FIELDS
    assert "0.9876" in csv_text(shown)
    assert '"best_epoch": {' in json_text(shown)
