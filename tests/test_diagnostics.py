"""Diagnostics see every update, change no bit of what is trained, survive a stop, and stay out of the measurement."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from conftest import At, Lab
from hebbbench.metrics.direction import cosine
from hebbbench.metrics.gini import gini
from hebbbench.metrics.rank import effective_rank
from hebbbench.metrics.units import update_dead, weight_dead
from hebbbench.record.schema import DIAGNOSTICS, PUBLISHED_READOUT
from hebbbench.record.store import scan
from hebbbench.training import observer
from hebbbench.training.learner import Learner
from hebbbench.training.observer import Observer, at_last
from hebbbench.training.run import Settings, run_cell

SOFT = {"optimizer": {"lr": 0.01}, "init": {"law": "normal", "radius": 25.0}}
CASES = {
    "end to end": ("bp", "digits-mlp", {"architecture.options.dropout": 0.5}, {}),
    "another feedback path": ("fa", "digits-mlp", {}, {}),
    "local": ("softhebb", "digits-mlp", {}, SOFT),
    "convolutions, layerwise": ("softhebb", "digits-deephebb", {}, {"schedule": "layerwise", **SOFT}),
    "whole network": ("pc", "digits-mlp", {}, {}),
    "settling": ("ep", "digits-mlp", {}, {}),
    "untrained": ("random", "digits-mlp", {}, {"epochs": 0}),
}
LEARNING = ["local", "end to end", "whole network"]


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


def spy(monkeypatch) -> list[tuple[Learner, torch.nn.Module, Tensor, list[Tensor]]]:
    """Filled as cells train: the learner, its body before the step, the step's batch, and the updates, negated."""
    steps = []
    step = Learner.step

    def spied(self, x, labels, number, *rest):
        before = copy.deepcopy(self.model.body)
        loss = step(self, x, labels, number, *rest)
        if self.observer is not None:
            steps.append((self, before, x, [weight.grad.clone() for weight in self.plasticity.weights()]))
        return loss

    monkeypatch.setattr(Learner, "step", spied)
    return steps


@pytest.mark.parametrize("name", LEARNING)
def test_what_is_recorded_is_what_a_loop_over_the_updates_gives(lab, monkeypatch, name):
    cell = make(lab, name)
    steps = spy(monkeypatch)
    result = watched(lab, cell)
    found = diagnostics(result)
    last = [layer.weight for layer in steps[-1][0].plasticity.layers]
    for index, layer in enumerate(("fc1", "fc2")):
        updates = [gradients[index] for *_, gradients in steps]
        sizes = [torch.stack([row.norm() for row in update]).double() for update in updates]
        mean = sum(sizes) / len(sizes)
        assert found[f"gini.{layer}.start"] == pytest.approx(gini(sizes[0]), rel=1e-6)
        assert found[f"gini.{layer}.end"] == pytest.approx(gini(mean), rel=1e-6)
        assert found[f"dead.update.{layer}"] == update_dead(mean)
        assert found[f"dead.weight.{layer}"] == weight_dead(getattr(steps[0][1], layer).weight, last[index])
        assert found[f"weight_norm.{layer}.mean"] == pytest.approx(float(last[index].norm(dim=1).mean()), rel=1e-5)
        curve = result.curves[f"{DIAGNOSTICS}gini.{layer}"]
        assert [x for x, _ in curve] == pytest.approx([(i + 1) / (len(steps) / 2) for i in range(len(steps))])
        assert curve[-1][1] == pytest.approx(found[f"gini.{layer}.end"], rel=1e-6)
        up, down = sum((update < 0).double() for update in updates), sum((update > 0).double() for update in updates)
        consistency = ((up - down) / len(updates)).abs().mean().item()
        assert found[f"sign_consistency.{layer}"] == pytest.approx(consistency, rel=1e-9)
        assert 0.05 < consistency < 1


@pytest.mark.parametrize(
    ("name", "changes"), [*((name, {}) for name in LEARNING), ("end to end", {"activation": "tanh"})]
)
def test_alignment_is_the_mean_over_the_last_tenth_with_what_the_layer_s_potential_and_activity_give(
    lab, monkeypatch, name, changes
):
    rule, base, options, recipe = CASES[name]
    options = {**options, "training.epochs": 8}
    options |= {f"architecture.options.{key}": value for key, value in changes.items()}
    steps = spy(monkeypatch)
    result = watched(lab, lab.cell(rule, lab.protocol(base, options), **recipe))
    found = diagnostics(result)
    means = {}
    for layer in (1, 2):
        pre, post = [], []
        for _, body, x, gradients in steps[-4:]:  # 40 steps, all of them measured; the last tenth of 39 is 3.9 wide
            h = body.train()[: 3 * layer - 2](x)  # norm, linear, activation, norm, …
            u = body[3 * layer - 2](h)
            for kept, a in ((pre, u), (post, body[3 * layer - 1](u))):
                outer = sum(torch.outer(row, column) for row, column in zip(a, h, strict=True))
                kept.append(cosine(-gradients[layer - 1], outer))
        curve = result.curves[f"{DIAGNOSTICS}hebbian_alignment.fc{layer}"]
        assert [value for _, value in curve[-4:]] == pytest.approx(pre, abs=1e-5)
        means |= {f"hebbian_alignment.fc{layer}": pre, f"hebbian_alignment.fc{layer}.post": post}
        for kind in ("gradient_alignment", "gradient_sign"):
            values = [value for _, value in result.curves.get(f"{DIAGNOSTICS}{kind}.fc{layer}", [])]
            assert bool(values) == (f"{kind}.fc{layer}" in found) == (name != "local")
            means |= {f"{kind}.fc{layer}": values[-4:]} if values else {}
    for key, values in means.items():
        assert found[key] == pytest.approx(sum(values) / 4, abs=1e-5)
    assert abs(found["hebbian_alignment.fc1"] - found["hebbian_alignment.fc1.post"]) > 1e-3


def test_the_last_tenth_is_of_what_a_curve_spans():
    assert at_last([(10 + x, float(x)) for x in range(21)]) == pytest.approx((18 + 19 + 20) / 3)
    assert at_last([(1.0, 5.0), (2.0, 7.0)]) == 7
    assert at_last([(3.0, 4.0)]) == 4
    assert at_last([]) is None


def test_where_nothing_moves_there_is_no_angle_but_a_consistency(lab):
    rule = lab.rule("idle", "weight: return torch.zeros_like(weight)")
    metrics = watched(lab, lab.cell(rule)).metrics
    for kind in ("hebbian_alignment.fc1", "hebbian_alignment.fc2.post"):
        assert "there is no angle" in metrics[DIAGNOSTICS + kind].reason
    assert metrics[f"{DIAGNOSTICS}sign_consistency.fc1"].value == 0


# Dead units

SILENCING = "weight: delta = torch.zeros_like(weight); delta[:3] = -weight[:3]; return delta"


@pytest.mark.parametrize("base", ["digits-mlp", "digits-deephebb"])
@pytest.mark.parametrize("activation", ["relu", "triangle"])
def test_units_are_dead_by_their_activity_on_the_validation_split(lab, monkeypatch, base, activation):
    rule = lab.rule("silencing", SILENCING)
    options = {"architecture.options.activation": activation, "architecture.options.widths": [9, 7, 5]}
    protocol = lab.protocol(base, {**options, "data.validation": 300})  # two batches
    shown, naive = [], {}
    features, measure = Learner.features, Observer.feature_metrics

    def spied(self, x):
        shown.append(x)
        return features(self, x)

    def measured(self, found, epoch):
        h = torch.cat(shown)[-len(found) :]
        for name, module in self.learner.model.body.named_children():
            with torch.no_grad():
                h = module(h)
            if name.startswith("act"):
                rows = h.movedim(1, -1).flatten(0, -2)
                alive = {k for row in rows for k, value in enumerate(row.tolist()) if value > 0}
                strongest = [row.index(max(row)) for row in rows.tolist() if max(row) > 0]
                few = [k for k in range(rows.shape[1]) if strongest.count(k) < len(rows) / rows.shape[1] / 10]
                naive[name[-1]] = 1 - len(alive) / rows.shape[1], len(few) / rows.shape[1]
        assert h.flatten(1).allclose(found, atol=1e-5)
        return measure(self, found, epoch)

    monkeypatch.setattr(Learner, "features", spied)
    monkeypatch.setattr(Observer, "feature_metrics", measured)
    # One step silences three units of each layer: their potentials are 0, so a relu's activity is.
    result = watched(lab, lab.cell(rule, protocol, optimizer={"lr": 1.0, "momentum": 0.0}))
    layer = "fc" if base == "digits-mlp" else "conv"
    found = {name: value for name, value in diagnostics(result).items() if name.startswith(f"dead.activation.{layer}")}
    assert found == {f"dead.activation.{layer}{i}": pytest.approx(naive[i][0]) for i in "123"}
    found = {name: value for name, value in diagnostics(result).items() if name.startswith(f"dead.win.{layer}")}
    assert found == {f"dead.win.{layer}{i}": pytest.approx(naive[i][1]) for i in "123"}
    assert {result.metrics[DIAGNOSTICS + name].split for name in found} == {"validation"}
    if activation == "relu":
        assert naive["1"][0] >= 3 / 9
        assert naive["3"][1] >= 3 / 5
    if base == "digits-mlp":
        for kind in ("activation", "win"):
            assert diagnostics(result)[f"dead.{kind}.fc3"] == diagnostics(result)[f"dead.{kind}.features"]


def test_a_network_that_settles_shows_the_activity_of_no_layer(lab):
    metrics = watched(lab, make(lab, "settling")).metrics
    for kind in ("activation", "win"):
        assert "a way of its own" in metrics[f"{DIAGNOSTICS}dead.{kind}.fc1"].reason
        assert metrics[f"{DIAGNOSTICS}dead.{kind}.features"].value is not None


# The effective rank


@pytest.mark.parametrize(
    ("width", "fewest", "numbers", "samples", "reason"),
    [
        (40, 5000, 2**27, 200, None),  # the whole split
        (30, 100, 2**27, 150, None),  # more samples than are looked at otherwise, because there are many features
        (10, 100, 2**27, 100, None),
        (41, 5000, 2**27, 0, "41 features need 205 samples, 5 each, and the split has 200"),
        (30, 100, 4499, 0, "30 features on 150 samples, 5 each, are more than 4499 numbers to hold"),
    ],
)
def test_the_effective_rank_is_of_five_samples_a_feature_or_there_is_none(
    lab, monkeypatch, width, fewest, numbers, samples, reason
):
    monkeypatch.setattr(observer, "SAMPLES", fewest)
    monkeypatch.setattr(observer, "NUMBERS", numbers)
    kept = []
    measure = Observer.feature_metrics
    monkeypatch.setattr(
        Observer,
        "feature_metrics",
        lambda self, found, epoch: (kept.append(found.clone()), measure(self, found, epoch))[1],
    )
    protocol = lab.protocol(changes={"architecture.options.widths": [16, width]})
    metric = watched(lab, lab.cell("random", protocol, epochs=0)).metrics[f"{DIAGNOSTICS}effective_rank.features"]
    assert metric.reason == reason
    assert metric.value == (None if reason else effective_rank(kept[0][:samples]))


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


def stopped_once(lab: Lab, cell, at: int, diagnosed: bool = True, phase: str | None = None):
    def stop() -> None:
        raise KeyboardInterrupt

    settings = Settings(device="cpu", cache=lab.cache, checkpoint_seconds=0.0, diagnostics=diagnosed)
    with pytest.raises(KeyboardInterrupt):
        run_cell(cell, None, settings, At(at, stop, phase))


def test_a_local_rule_that_governs_the_read_out_has_diagnostics_of_it(lab):
    protocol = lab.protocol(changes={"plastic": ["fc*", "head.linear"], "plastic_unsupervised": None})
    found = watched(lab, lab.cell("oja", protocol, optimizer={"lr": 1e-3}))
    assert found.status == "ok", found.reason
    assert any("head.linear" in name for name in found.metrics)


@pytest.mark.parametrize("name", [*LEARNING, "convolutions, layerwise"])
@pytest.mark.parametrize(("at", "phase"), [(6, None), (2, "linear probe")])
def test_diagnostics_go_on_where_a_cell_was_stopped(lab, name, at, phase):
    cell = make(lab, name)
    whole = watched(lab, cell)
    stopped_once(lab, cell, at, phase=phase)
    again = watched(lab, cell)
    assert again.cost.resumed == 1
    names = [name for name in whole.metrics if not name.endswith(".seconds")]
    assert {name: again.metrics[name] for name in names} == {name: whole.metrics[name] for name in names}
    assert again.curves == whole.curves


def test_a_checkpoint_of_a_version_that_kept_no_signs_is_continued_without_them(lab, monkeypatch):
    cell = make(lab, "local")
    whole = watched(lab, cell)
    state = Observer.state_dict
    with monkeypatch.context() as older:
        older.setattr(
            Observer, "state_dict", lambda self: {k: v for k, v in state(self).items() if k not in ("signs", "post")}
        )
        stopped_once(lab, cell, 6)
    again = watched(lab, cell)
    assert again.cost.resumed == 1
    assert again.curves == whole.curves
    assert "kept no signs" in again.metrics[f"{DIAGNOSTICS}sign_consistency.fc1"].reason
    assert diagnostics(again)["hebbian_alignment.fc1.post"] == diagnostics(whole)["hebbian_alignment.fc1.post"]


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
