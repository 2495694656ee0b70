"""Diagnostics see every update, change no bit of what is trained, survive a stop, and stay out of the measurement."""

from __future__ import annotations

import math

import pytest
import torch

from conftest import At, Lab
from hebbbench.metrics.gini import gini
from hebbbench.metrics.units import update_dead, weight_dead
from hebbbench.record.schema import DIAGNOSTICS, PUBLISHED_READOUT
from hebbbench.record.store import scan
from hebbbench.training.learner import Learner
from hebbbench.training.run import Settings, run_cell

SOFT = {"optimizer": {"lr": 0.01}, "init": {"law": "normal", "radius": 25.0}}
CASES = {
    "end to end": ("bp", "digits-mlp", {"architecture.options.dropout": 0.5}, {}),
    "another feedback path": ("fa", "digits-mlp", {}, {}),
    "local": ("softhebb", "digits-mlp", {}, SOFT),
    "convolutions, layerwise": ("softhebb", "digits-deephebb", {}, {"schedule": "layerwise", **SOFT}),
    "untrained": ("random", "digits-mlp", {}, {"epochs": 0}),
}


def watched(lab: Lab, cell, reporter=None, every: float = 60.0, **options):
    settings = Settings(device="cpu", cache=lab.cache, checkpoint_seconds=every, diagnostics=True)
    return run_cell(cell, options.pop("results", None), settings, reporter or At(), **options)


def make(lab: Lab, name: str):
    rule, base, changes, recipe = CASES[name]
    return lab.cell(rule, lab.protocol(base, changes), **recipe)


def diagnostics(result) -> dict[str, float]:
    return {name.removeprefix(DIAGNOSTICS): m.value for name, m in result.metrics.items() if DIAGNOSTICS in name}


@pytest.mark.parametrize("name", CASES)
def test_a_cell_with_diagnostics_measures_what_it_measures_without(lab, name):
    cell = make(lab, name)
    plain, seen = lab.run(cell), watched(lab, cell)
    assert seen.status == "ok", seen.reason
    assert seen.weights == plain.weights
    assert seen.measurement() == plain.measurement()
    assert not any(part.startswith(DIAGNOSTICS) for part in (*plain.metrics, *plain.curves))
    assert "effective_rank.features" in diagnostics(seen)


@pytest.mark.parametrize("name", ["end to end", "local"])
def test_a_cell_that_diverges_under_diagnostics_is_a_result_like_any_other(lab, name):
    rule, base, changes, _ = CASES[name]
    cell = lab.cell(rule, lab.protocol(base, changes), optimizer={"lr": 1e30})
    result = watched(lab, cell, results=lab.results)
    assert (result.status, result.stop.phase) == ("diverged", "training")
    (stored,) = scan(lab.results)
    assert stored.result == result
    assert all(math.isfinite(y) for points in result.curves.values() for _, y in points)


def test_what_is_recorded_is_what_a_loop_over_the_updates_gives(lab, monkeypatch):
    cell = make(lab, "local")
    steps = []
    step = Learner.step

    def spied(self, x, labels, number, *rest):
        before = [weight.detach().clone() for weight in self.plasticity.weights()]
        loss = step(self, x, labels, number, *rest)
        if self.observer is not None:
            steps.append((before, [weight.grad.clone() for weight in self.plasticity.weights()], self))
        return loss

    monkeypatch.setattr(Learner, "step", spied)
    result = watched(lab, cell)
    found = diagnostics(result)
    last = [layer.weight for layer in steps[-1][2].plasticity.layers]
    for index, layer in enumerate(("fc1", "fc2")):
        sizes = [torch.stack([row.norm() for row in gradients[index]]).double() for _, gradients, _ in steps]
        mean = sum(sizes) / len(sizes)
        assert found[f"gini.{layer}.start"] == pytest.approx(gini(sizes[0]), rel=1e-6)
        assert found[f"gini.{layer}.end"] == pytest.approx(gini(mean), rel=1e-6)
        assert found[f"dead.update.{layer}"] == update_dead(mean)
        assert found[f"dead.weight.{layer}"] == weight_dead(steps[0][0][index], last[index])
        assert found[f"weight_norm.{layer}.mean"] == pytest.approx(float(last[index].norm(dim=1).mean()), rel=1e-5)
        curve = result.curves[f"{DIAGNOSTICS}gini.{layer}"]
        assert [x for x, _ in curve] == pytest.approx([(i + 1) / (len(steps) / 2) for i in range(len(steps))])
        assert curve[-1][1] == pytest.approx(found[f"gini.{layer}.end"], rel=1e-6)


def test_backprop_agrees_with_the_gradient_entirely_and_feedback_alignment_only_in_the_last_layer(lab):
    def ends(name):
        curves = watched(lab, make(lab, name)).curves
        return {key.removeprefix(DIAGNOSTICS): points[-1][1] for key, points in curves.items()}

    exact, random_path = ends("end to end"), ends("another feedback path")
    for layer in ("fc1", "fc2"):
        assert exact[f"gradient_alignment.{layer}"] == pytest.approx(1, abs=1e-5)
        assert exact[f"gradient_sign.{layer}"] > 0.999
    assert abs(random_path["gradient_alignment.fc1"]) < 0.9


def test_a_rule_without_a_read_out_has_no_gradient_to_agree_with_and_hebb_agrees_with_itself(lab):
    rule = lab.rule("plainhebb", "pre, post: from hebbbench import hebb; return hebb(post, pre)")
    curves = watched(lab, lab.cell(rule, None, optimizer={"lr": 1e-4})).curves
    assert not any("gradient" in name for name in curves)
    assert all(
        value == pytest.approx(1, abs=1e-5)
        for name, points in curves.items()
        if "hebbian_alignment" in name
        for _, value in points
    )


def stopped_once(lab: Lab, cell, at: int, diagnosed: bool = True):
    def stop() -> None:
        raise KeyboardInterrupt

    settings = Settings(device="cpu", cache=lab.cache, checkpoint_seconds=0.0, diagnostics=diagnosed)
    with pytest.raises(KeyboardInterrupt):
        run_cell(cell, None, settings, At(at, stop))


def test_diagnostics_go_on_where_a_cell_was_stopped(lab):
    cell = make(lab, "local")
    whole = watched(lab, cell)
    stopped_once(lab, cell, 6)
    again = watched(lab, cell)
    assert again.cost.resumed == 1
    names = [name for name in whole.metrics if not name.endswith(".seconds")]
    assert {name: again.metrics[name] for name in names} == {name: whole.metrics[name] for name in names}
    assert again.curves == whole.curves


def test_a_checkpoint_without_diagnostics_is_not_continued_with_them(lab):
    cell = make(lab, "local")
    stopped_once(lab, cell, 6, diagnosed=False)
    seen = At()
    result = watched(lab, cell, seen)
    assert result.cost.resumed == 0
    assert any("no diagnostics" in text for text in seen.said)
    assert result.curves == watched(lab, cell).curves


def test_a_finished_cell_runs_again_only_for_diagnostics_it_lacks(lab):
    cell = make(lab, "untrained")
    plain = lab.run(cell, results=lab.results)
    seen = watched(lab, cell, results=lab.results)
    assert diagnostics(seen)
    assert not diagnostics(plain)
    assert lab.run(cell, results=lab.results) == seen
    assert watched(lab, cell, results=lab.results) == seen


def test_a_protocol_can_ask_for_diagnostics_and_the_default_stays_out_of_its_hash(lab):
    plain, asking = lab.protocol(), lab.protocol(changes={"diagnostics": True})
    assert plain.hash != asking.hash
    assert not {"diagnostics", "published_probe"} & set(plain.identity())
    result = lab.run(lab.cell("softhebb", asking, **SOFT))
    assert "gini.fc1.end" in diagnostics(result)


# The published read-out


def test_the_published_read_out_is_the_best_epoch_on_the_test_split_and_changes_nothing_else(lab):
    spec = {"epochs": 4, "batch_size": 64, "lr": 0.01, "dropout": 0.5, "layer_norm": True}
    cell = lab.cell("random", lab.protocol(changes={"published_probe": spec}), epochs=0)
    plain = lab.run(lab.cell("random", lab.protocol(), epochs=0))
    result = lab.run(cell)
    best = result.metrics[PUBLISHED_READOUT]
    assert 1 <= best.epoch <= 4
    assert best.split == "test"
    assert best.value > 0.3
    assert {k: v for k, v in result.metrics.items() if k != PUBLISHED_READOUT} == plain.metrics
    assert lab.run(cell).measurement() == result.measurement()


def test_tuning_never_runs_the_published_read_out(lab):
    spec = {"epochs": 1, "batch_size": 64, "lr": 0.01}
    cell = lab.cell("random", lab.protocol(changes={"published_probe": spec}), epochs=0)
    assert PUBLISHED_READOUT not in lab.run(cell, read_test=False).metrics
