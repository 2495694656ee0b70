"""Hebbian alignment: its definition, the data and cells it is measured on, and networks trained together."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import At
from hebbbench import Rule, registry
from hebbbench.board.alignment import alignment_lines, alignments
from hebbbench.cell import Cell, cells
from hebbbench.data import load, pins, split_identity
from hebbbench.data.spec import dataset_spec
from hebbbench.data.teacher import ask_teacher
from hebbbench.errors import ProtocolError
from hebbbench.metrics.alignment import cosines, hebbian
from hebbbench.plan import KnownRule, Sources, planned_rules
from hebbbench.progress import Silent
from hebbbench.protocol import Protocol
from hebbbench.recipe import Recipe
from hebbbench.report import summary
from hebbbench.training import alignment, grid
from hebbbench.training import course as course_module
from hebbbench.training.alignment import AlignmentMeter
from hebbbench.training.grid import run_cells
from hebbbench.training.learner import Learner
from hebbbench.training.network import build_model
from hebbbench.training.run import Settings, run_cell
from hebbbench.training.soundness import check_cell
from hebbbench.training.stackable import descends
from hebbbench.training.witness import Witness
from hebbbench.validation import validate

OLD_HASHES = {
    "cifar10-deephebb": "a5bc3dd23b9c2b51adc42d6ec0623857ef3fa4ed8e65aafcc78e3828f27407a4",
    "cifar10-fasthebb": "5d205f00263d71ab9876301a9b466421a679ea0f28faf474f05163a8cf1988fe",
    "cifar10-small": "14d6db9ba8bfa21a967b6b7144e0019e8977c970c3b2dcb91fa0d3fdaca2a466",
    "cifar100-deephebb": "c1d584a12dc22a9a9364d5b93a002cb409608c482a129223ba67503f06297868",
    "digits-deephebb": "6d106f395eef0d88735419c1ac4486ea9722bafe8585dd52cbf8f9bddbbcb4b5",
    "digits-mlp": "b590b20f2e0f4ea2670662960d5dcd47c26beadf763123459e1ff8281a3e348a",
    "mnist-mlp": "1bc9a2592bd7d1e00e709cde721191e3cee022195590cdd13fbb7c551d025628",
}


def work(**changes: Any) -> Protocol:
    """sre-mlp made short: one epoch of ten batches."""
    plain = registry.protocol("sre-mlp").model_dump(mode="json", exclude={"axes", "published"})
    plain["training"] |= {"epochs": 1, "batch_size": 2000} | changes.pop("training", {})
    free = {"free": [*plain["free"], "architecture.activation"]}
    return Protocol.model_validate(plain | {"alignment": {"window": 4}, "axes": {}} | free | changes)


def cell_of(protocol: Protocol, rule: str = "bp", seed: int = 0, **recipe: Any) -> Cell:
    (cell,) = cells(protocol, [rule], [seed], {}, Recipe(provenance="default", **recipe))
    return cell


@pytest.mark.parametrize("name", OLD_HASHES)
def test_fields_added_for_alignment_leave_published_identities_alone(name):
    assert registry.protocol(name).hash == OLD_HASHES[name]


def test_what_is_added_counts_once_it_is_set():
    assert work().hash != work(training={"noise": 0.1}).hash
    assert "noise" not in work().identity()["training"]
    assert work(training={"noise": 0.1}).identity()["training"]["noise"] == 0.1


# The metric


def test_the_hebbian_update_is_the_mean_outer_product_and_the_cosine_is_over_all_entries():
    a, x = np.random.default_rng(0).normal(size=(7, 3)), np.random.default_rng(1).normal(size=(7, 4))
    mean = sum(np.outer(ak, xk) for ak, xk in zip(a, x, strict=True)) / 7
    found = hebbian(torch.tensor(a), torch.tensor(x))
    np.testing.assert_allclose(found.numpy(), mean, rtol=1e-12)
    g = np.random.default_rng(2).normal(size=(3, 4))
    expected = (g * mean).sum() / math.sqrt((g**2).sum() * (mean**2).sum())
    assert cosines(torch.tensor(g), found).item() == pytest.approx(expected, rel=1e-12)


def test_at_rest_a_linear_ridge_problem_is_as_hebbian_as_its_closed_form_says():
    """At rest ⟨g⟩ = γ w: the inner product with Hebb is γ tr(w C wᵀ) > 0, the full-data cosine cos(w, w C), and the
    mean over minibatches grows with γ, as the signal γ w does over their noise."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 16, generator=source, dtype=torch.float64)
    y = x @ torch.randn(16, 5, generator=source, dtype=torch.float64)
    y += torch.randn(y.shape, generator=source, dtype=torch.float64)
    c = x.T @ x / len(x)
    means = []
    for decay in (0.0, 1e-3, 1e-2, 1e-1):
        w = torch.linalg.solve(c + decay * torch.eye(16, dtype=torch.float64), x.T @ y / len(x)).T
        u = x @ w.T
        g, hebb = -hebbian(u - y, x), hebbian(u, x)
        inner = (g * hebb).sum().item()
        assert inner == pytest.approx(decay * torch.trace(w @ c @ w.T).item(), abs=1e-10)
        if decay:
            assert cosines(g, hebb).item() == pytest.approx(cosines(w, w @ c).item(), rel=1e-6)
        parts = [slice(start, start + 50) for start in range(0, len(x), 50)]
        means.append(np.mean([cosines(-hebbian(u[p] - y[p], x[p]), hebbian(u[p], x[p])).item() for p in parts]))
    assert abs(means[0]) < 0.02
    assert means == sorted(means)
    assert means[-1] > 0.2


# The data


def test_the_teachers_samples_are_the_pinned_ones():
    for split, data in ask_teacher(dataset_spec("teacher-mlp")).items():
        assert split_identity(data.images, data.labels) == pins()["teacher-mlp"][split]
        assert np.array_equal(data.labels * 2**16, np.round(data.labels * 2**16))


# Networks trained together


CASES = {
    "sgd": ("bp", {"optimizer": {"lr": 0.1, "weight_decay": 0.01}}, {}),
    "momentum": ("bp", {"optimizer": {"lr": 0.1, "momentum": 0.9, "nesterov": True}}, {}),
    "adam": ("bp", {"optimizer": {"name": "adam", "lr": 0.01, "weight_decay": 0.001}}, {}),
    "adamw": ("bp", {"optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1}}, {}),
    "clip": ("dfa", {"optimizer": {"lr": 0.1, "clip": 0.05}, "architecture": {"biases": "all"}}, {}),
    "last batch": ("bp", {}, {"training": {"batch_size": 1999}}),
    "l1": ("bp", {"optimizer": {"lr": 0.1, "l1": 0.001}}, {}),
    "noise": ("bp", {}, {"training": {"noise": 0.01}}),
    "sparsity": ("bp", {"optimizer": {"lr": 0.1}}, {"training": {"sparsity": 0.3}}),
    **{
        activation: ("bp", {"optimizer": {"lr": 0.1}, "architecture": {"activation": activation}}, {})
        for activation in ("relu", "sigmoid", "linear")
    },
    "sign": ("sign", {"optimizer": {"lr": 0.0001}}, {}),
    "state": ("random_nn", {"optimizer": {"lr": 0.1}}, {}),
    "vmap": ("oja", {"optimizer": {"lr": 0.001}}, {}),
    "constraint": ("hebb", {"optimizer": {"lr": 0.1}}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_networks_trained_together_are_those_of_the_loop(case, tmp_path):
    rule, recipe, changes = CASES[case]
    protocol = work(**changes)
    planned = [cell_of(protocol, rule, seed, **recipe) for seed in (0, 1)]
    together = {result.seed: result for result in run_cells(planned, tmp_path, Settings(), Silent())}
    for cell in planned:
        single = run_cell(cell, None, Settings(), Silent())
        stacked = together[cell.seed]
        assert stacked.status == single.status == "ok"
        assert set(stacked.metrics) == set(single.metrics)
        for name, metric in single.metrics.items():
            assert stacked.metrics[name].value == pytest.approx(metric.value, abs=2e-5, rel=1e-4), name
        assert np.allclose(stacked.curves.get("train.loss", []), single.curves.get("train.loss", []), rtol=1e-5)
        rates = {"achieved_flops_per_second", "ceiling_flops_per_second"}
        assert stacked.work.model_dump(exclude=rates) == single.work.model_dump(exclude=rates)
        assert stacked.work.achieved_flops_per_second > 0
        assert stacked.environment.determinism_probe is single.environment.determinism_probe is True


def test_the_cosines_over_all_data_leave_the_network_as_it_is(tmp_path, monkeypatch):
    options = {**work().architecture.options, "norm": "batch", "dropout": 0.3}
    plain = work(architecture={"name": "mlp", "options": options})
    seen, full = [], course_module.full_data

    def watched(meter, batches, indices):
        buffers = {name: value.clone() for name, value in meter.learner.model.named_buffers()}
        first, draws = full(meter, batches, indices), torch.get_rng_state()
        assert torch.equal(torch.get_rng_state(), draws)
        assert all(torch.equal(value, buffers[name]) for name, value in meter.learner.model.named_buffers())
        seen.extend([len(buffers), first == full(meter, batches, indices)])
        return first

    monkeypatch.setattr(course_module, "full_data", watched)
    assert run_cell(cell_of(plain), None, Settings(), Silent()).status == "ok"
    assert seen == [6, True]


def test_alignment_is_not_measured_layer_by_layer():
    with pytest.raises(ProtocolError, match="schedule = 'layerwise' with alignment"):
        cell_of(work(free=["schedule", "optimizer"]), "oja", schedule="layerwise")


def test_networks_of_one_seed_share_its_batches(tmp_path):
    planned = [cell_of(work(), optimizer={"lr": 0.1, "weight_decay": decay}) for decay in (0.0, 0.1)]
    for cell, stacked in zip(planned, run_cells(planned, tmp_path, Settings(), Silent()), strict=True):
        single = run_cell(cell, None, Settings(), Silent())
        for name, metric in single.metrics.items():
            assert stacked.metrics[name].value == pytest.approx(metric.value, abs=2e-5, rel=1e-4), name


class Clipped(Rule):
    """Looks like descent wherever no gradient is large."""

    def delta(self, grad: Tensor) -> Tensor:
        return -grad.clamp(-1e3, 1e3)


def test_only_a_rule_that_is_the_negative_gradient_whatever_that_is_need_not_be_asked():
    known = {name: descends(registry.rule(name).create({}, name)) for name in ("bp", "dfa", "sign", "oja", "random_nn")}
    assert known == {"bp": True, "dfa": True, "sign": False, "oja": False, "random_nn": False}
    assert not descends(Clipped.create({}, "clipped"))


def test_finished_cells_are_not_trained_again(tmp_path, monkeypatch):
    planned = [cell_of(work(), seed=seed) for seed in (0, 1, 2)]
    list(run_cells(planned[:2], tmp_path, Settings(), Silent()))
    done = [run_cell(planned[0], None, Settings(), Silent())]
    trained: list[int] = []
    monkeypatch.setattr(
        grid,
        "train_together",
        lambda chunk, *rest: trained.extend(course.cell.seed for course in chunk.courses) or done[:1],
    )
    found = list(run_cells(planned, tmp_path, Settings(), Silent()))
    assert [result.seed for result in found[:2]] == [0, 1]
    assert trained == [2]


def test_what_an_axis_sets_outside_the_recipe_is_each_networks_own(tmp_path):
    window = {"path": "alignment.window", "values": [2, 4]}
    whitened = work(axes={"window": window})
    both = list(run_cells(cells(whitened, ["bp"], [0], {}), tmp_path / "both", Settings(), Silent()))
    single = [run_cell(cell, None, Settings(), Silent()) for cell in cells(whitened, ["bp"], [0], {})]
    found = [[result.metrics["alignment.fc2"].value for result in results] for results in (both, single)]
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert abs(found[0][0] - found[0][1]) > 1e-4


def test_a_rule_that_cannot_be_stacked_trains_one_by_one(tmp_path):
    """It looks at a number, which differs from network to network."""
    path = tmp_path / "looks.py"
    path.write_text(
        '"""Made by a test."""\nfrom hebbbench import Rule\n\n\nclass Looks(Rule):\n'
        "    def delta(self, grad):\n        return -grad if grad.mean() > 0 else -grad * 2\n"
    )
    planned = [*cells(work(), ["bp"], [0, 1], {}), *cells(work(), [str(path)], [0, 1], {})]
    said = At()
    found = list(run_cells(planned, tmp_path / "together", Settings(), said))
    assert any("2 networks train one by one, not together: RuntimeError: vmap" in line for line in said.said)
    alone = [run_cell(cell, None, Settings(), Silent()) for cell in planned[2:]]
    assert [(result.rule.name, result.status) for result in found] == [("bp", "ok")] * 2 + [("looks", "ok")] * 2
    assert [result.weights for result in found[2:]] == [result.weights for result in alone]


def test_weights_of_another_cell_do_not_stay_beside_a_network_trained_with_others(tmp_path):
    (cell,) = cells(work(), ["bp"], [0], {}, Recipe(provenance="default"))
    (other,) = cells(work(), ["bp"], [0], {}, Recipe(provenance="default", optimizer={"lr": 0.02}))
    list(run_cells([cell], tmp_path, Settings(save_weights=True), Silent()))
    (kept,) = tmp_path.rglob("*.safetensors")
    list(run_cells([cell], tmp_path, Settings(), Silent(), force=True))
    assert kept.exists()
    list(run_cells([other], tmp_path, Settings(), Silent()))
    assert not kept.exists()


def test_a_diverged_network_which_has_no_weights_is_done(tmp_path):
    (cell,) = cells(work(), ["bp"], [0], {}, Recipe(provenance="default", optimizer={"lr": 1e12}))
    (first,) = run_cells([cell], tmp_path, Settings(save_weights=True), Silent())
    assert first.status == "diverged"
    assert list(run_cells([cell], tmp_path, Settings(save_weights=True), Silent())) == [first]


def test_a_network_that_diverges_leaves_the_others_of_its_chunk_alone(tmp_path):
    calm, wild = cell_of(work(), optimizer={"lr": 0.1}), cell_of(work(), seed=1, optimizer={"lr": 1e12})
    found = {result.seed: result for result in run_cells([calm, wild], tmp_path, Settings(), Silent())}
    assert found[0].status == "ok"
    assert found[1].status == "diverged"
    assert found[1].stop is not None
    assert found[0].metrics["alignment.fc2"].value == pytest.approx(
        run_cell(calm, None, Settings(), Silent()).metrics["alignment.fc2"].value, abs=1e-5
    )


# The step of gradient descent, and a read-out beside local rules


def local(rule: str = "oja", readout: str = "trained", **changes: Any) -> Cell:
    protocol = work(training={"readout": readout, "rest": {"lr": 0.1}}, alignment={"window": 4, "sgd": True}, **changes)
    return cell_of(protocol, rule, optimizer={"lr": 0.01})


def test_sgd_alignment_is_the_cosine_of_the_rules_update_with_the_negative_gradient():
    cell = local()
    learner = Learner(cell, (1, 1, 32), 32, torch.device("cpu"))
    model = build_model("mlp", cell.recipe.architecture, (1, 1, 32), 32)
    meter = learner.watch = AlignmentMeter(learner, 1, 1, 1, Witness(model, learner))
    source = np.random.default_rng(0)
    x, targets = source.normal(size=(6, 32)), source.normal(size=(6, 32))
    w1, w2, w3 = (p.detach().numpy().astype(float) for p in learner.model.parameters())
    learner.step(torch.tensor(x, dtype=torch.float32), torch.tensor(targets, dtype=torch.float32), 0, 0.0)
    sums = [np.zeros_like(w1), np.zeros_like(w2)], [np.zeros_like(w1), np.zeros_like(w2)]
    for one, target in zip(x, targets, strict=True):
        u1 = w1 @ one
        y1 = np.tanh(u1)
        u2 = w2 @ y1
        y2 = np.tanh(u2)
        delta2 = w3.T @ (2 / 192 * (w3 @ y2 - target)) * (1 - y2**2)
        delta1 = w2.T @ delta2 * (1 - y1**2)
        for layer, (into, u, delta, w) in enumerate([(one, u1, delta1, w1), (y1, u2, delta2, w2)]):
            sums[0][layer] -= np.outer(delta, into)
            sums[1][layer] += np.outer(u, into) - u[:, None] ** 2 * w
    for layer, (descent, oja) in enumerate(zip(*sums, strict=True), start=1):
        expected = (descent * oja).sum() / np.linalg.norm(descent) / np.linalg.norm(oja)
        assert meter.means()[f"fc{layer}.sgd"] == pytest.approx(expected, abs=1e-5)


def test_backprop_goes_where_gradient_descent_goes():
    protocol = work(alignment={"window": 4, "sgd": True})
    result = run_cell(cell_of(protocol, optimizer={"lr": 0.1}), None, Settings(), Silent())
    for name in ("fc1.sgd", "fc2.sgd", "fc2.sgd.full"):
        assert result.metrics[f"alignment.{name}"].value == pytest.approx(1.0, abs=1e-5)


def test_the_curve_of_sgd_alignment_ends_where_the_metric_is():
    result = run_cell(local(), None, Settings(), Silent())
    curve = result.curves["alignment.fc2.sgd"]
    assert [x for x, _ in curve] == pytest.approx([0.1 * step for step in range(1, 11)])
    assert curve[-1][1] == pytest.approx(result.metrics["alignment.fc2.sgd"].value)
    first, second = curve[0][1], 2 * curve[1][1] - curve[0][1]
    assert result.curves["alignment.fc2.sgd.sd"][1][1] == pytest.approx(abs(first - second) / 2)


def test_a_meter_goes_on_from_what_it_saved():
    def made() -> tuple[Learner, AlignmentMeter]:
        learner = Learner(local(), (1, 1, 32), 32, torch.device("cpu"))
        model = build_model("mlp", local().recipe.architecture, (1, 1, 32), 32)
        meter = learner.watch = AlignmentMeter(learner, 3, 4, 1, Witness(model, learner))
        return learner, meter

    batch = torch.randn(8, 32), torch.randn(8, 32)
    whole, meter = made()
    for number in range(4):
        whole.step(*batch, number, 0.0)
    half, _ = made()
    for number in range(2):
        half.step(*batch, number, 0.0)
    rest, again = made()
    rest.load_state_dict(half.state_dict())
    for number in range(2, 4):
        rest.step(*batch, number, 0.0)
    assert again.means() == meter.means()
    assert again.curves == meter.curves


def test_a_trained_readout_learns_beside_a_local_rule_and_does_not_touch_it():
    found = {}
    for readout in ("trained", "frozen"):
        learner = Learner(local(readout=readout), (1, 1, 32), 32, torch.device("cpu"))
        drawn = learner.model.head.linear.weight.clone()
        source = torch.Generator().manual_seed(0)
        for number in range(3):
            x = torch.randn(16, 32, generator=source)
            learner.step(x, x.tanh(), number, 0.0)
        moved = not torch.equal(drawn, learner.model.head.linear.weight)
        assert moved == (readout == "trained")
        found[readout] = learner.digest()
    assert found["trained"] == found["frozen"]


def test_a_readout_beside_a_local_rule_is_scored():
    result = run_cell(local(), None, Settings(), Silent())
    assert result.metrics["end_to_end.test.loss"].value == pytest.approx(result.curves["train.loss"][-1][1], rel=0.5)
    assert "end_to_end.test.loss" not in run_cell(local(readout="frozen"), None, Settings(), Silent()).metrics


# A penalty on activity


@pytest.mark.parametrize("activation", ["tanh", "linear"])
def test_the_penalty_is_the_mean_absolute_activity_of_every_plastic_layer(activation):
    options = {**work().architecture.options, "activation": activation}
    protocol = work(training={"sparsity": 0.3}, architecture={"name": "mlp", "options": options})
    learner = Learner(cell_of(protocol), (1, 1, 32), 32, torch.device("cpu"))
    x, targets = torch.randn(8, 32), torch.randn(8, 32)
    w1, w2, w3 = (p.detach().clone().requires_grad_() for p in learner.model.parameters())
    f = torch.tanh if activation == "tanh" else lambda u: u
    y1 = f(x @ w1.T)
    y2 = f(y1 @ w2.T)
    task = (y2 @ w3.T - targets).square().mean()
    (task + 0.3 * (y1.abs().sum() + y2.abs().sum()) / (8 * 128)).backward()
    for _ in range(2):
        loss = learner.find_update(x, targets)
        assert loss.item() == pytest.approx(task.item())
        for mine, expected in zip(learner.model.parameters(), (w1, w2, w3), strict=True):
            torch.testing.assert_close(mine.grad, expected.grad)


def test_a_rule_that_follows_no_loss_cannot_be_penalised():
    with pytest.raises(ProtocolError, match=r"sparsity = 0.3.*rule Oja"):
        Learner(cell_of(work(training={"sparsity": 0.3}), "oja"), (1, 1, 32), 32, torch.device("cpu"))


# Cells and the board


def test_weights_that_collapse_are_a_result_without_a_cosine(tmp_path):
    protocol = work(training={"epochs": 4})
    cell = cell_of(protocol, optimizer={"lr": 0.5, "weight_decay": 1.0})
    (result,) = run_cells([cell], tmp_path, Settings(), Silent())
    assert result.status == "ok"
    metric = result.metrics["alignment.fc2"]
    assert metric.value is None
    assert (metric.reason or "").startswith("collapsed: the weights have")
    text = "\n".join(section(protocol, [result]))
    assert "collapsed (1)" in text


@pytest.mark.parametrize(("rate", "answers"), [(0.5, True), (1e-6, False)])
def test_small_weights_that_answer_have_not_collapsed(tmp_path, monkeypatch, rate, answers):
    monkeypatch.setattr(alignment, "COLLAPSED", 1e9)
    cell = cell_of(work(training={"epochs": 12, "batch_size": 500}), optimizer={"lr": rate})
    (result,) = run_cells([cell], tmp_path, Settings(), Silent())
    silence = load("teacher-mlp").train.labels.astype("float64") ** 2
    assert (result.curves["train.loss"][-1][1] < 0.5 * silence.mean()) == answers
    assert (result.metrics["alignment.fc2"].value is not None) == answers


def section(protocol: Protocol, results: list[Any]) -> list[str]:
    rules = {"bp": KnownRule(registry.rule_source_hash("bp"), {})}
    sources = Sources({protocol.name: protocol}, rules, (), Path())
    return alignment_lines(alignments(protocol, planned_rules(sources, protocol), results), [], "results")


def test_an_axis_varies_for_its_rules_alone():
    protocol = registry.protocol("sre-mlp")
    planned = cells(protocol, ["bp", "dfa"], [0], {"decay": 0.0})
    assert [(cell.rule, cell.axes["optimizer"]) for cell in planned] == [("bp", "sgd"), ("dfa", "sgd"), ("bp", "adam")]


def test_the_board_shows_one_matrix_with_published_numbers_below(tmp_path):
    axes = {"decay": {"path": "training.optimizer.weight_decay", "values": [0.0, 0.01]}}
    published = [{"rule": "bp", "value": -0.1, "sd": 0.01, "source": "a paper", "axes": {"decay": 0.0}}]
    protocol = work(axes=axes, published=published)
    results = list(run_cells(cells(protocol, ["bp"], [0, 1], {}), tmp_path, Settings(), Silent()))
    lines = section(protocol, results)
    row = next(line for line in lines if line.startswith("| bp"))
    assert row.count("(2)") == 2
    assert "*−0.10 ± 0.01*" in next(line for line in lines if line.startswith("| *published*"))
    assert not any("%" in line for line in lines)
    assert not any(line.startswith("| bp, ") for line in lines)


def test_a_published_number_of_another_layer_stands_below_that_layers_cosines(tmp_path):
    axes = {"decay": {"path": "training.optimizer.weight_decay", "values": [0.0, 0.01]}}
    entry = {"rule": "bp", "value": 0.5, "source": "a paper", "axes": {"decay": 0.0}, "beside": "alignment.fc1"}
    other = {**entry, "axes": {"decay": 0.01}, "beside": "alignment.fc9"}
    protocol = work(axes=axes, published=[entry, other])
    assert protocol.hash == work(axes=axes).hash
    results = list(run_cells(cells(protocol, ["bp"], [0], {}), tmp_path, Settings(), Silent()))
    rows = [line for line in section(protocol, results) if line.startswith(("| bp", "| *"))]
    assert [row.split("|")[1].strip() for row in rows] == ["bp", "bp, fc1", "bp, fc9", "*published*"]
    measured = results[0].metrics["alignment.fc1"].value
    assert f"{measured:.3f}".replace("-", "−") in rows[1]
    assert rows[2].count("not measured (1)") == 2


def test_a_headline_needs_the_section_it_is_measured_by():
    plain = work().model_dump(mode="json")
    with pytest.raises(ValueError, match=r"headline = 'alignment.fc2' needs the section 'alignment'"):
        Protocol.model_validate(plain | {"alignment": None})
    with pytest.raises(ValueError, match=r"headline = 'probe.test.accuracy' needs the section 'probe'"):
        Protocol.model_validate(plain | {"headline": "probe.test.accuracy"})


def test_a_headline_is_of_a_plastic_layer():
    (cell,) = cells(work(headline="alignment.fc9"), ["bp"], [0], {})
    with pytest.raises(
        ProtocolError, match=r"headline = 'alignment.fc9' is of no plastic layer\. Valid: alignment.fc1, "
    ):
        check_cell(cell)
    for headline in ("alignment.fc2", "alignment.fc2.sgd"):
        check_cell(*cells(work(headline=headline), ["bp"], [0], {}))


def test_a_recipe_cannot_choose_the_noise():
    for condition in ("noise", "sparsity", "readout"):
        with pytest.raises(ValueError, match=rf"free: '{condition}'"):
            work(free=[condition])
    with pytest.raises(ProtocolError, match="noise"):
        validate(Recipe, {"provenance": "default", "noise": 0.1}, "here")


# Signals that know nothing


@pytest.mark.parametrize("options", [{}, {"clip_first": False, "scale": 3.0}, {"target": 2.0, "scale": 0.01}])
def test_random_nn_is_the_equation_of_the_paper(options):
    source = np.random.default_rng(0)
    rule = registry.rule("random_nn").create(options, "here")
    weight, x = torch.tensor(source.normal(size=(5, 4))), torch.tensor(source.normal(size=(6, 32)))
    state = rule.init(weight)
    first, second, third, last, projection = (state[key].numpy() for key in state)
    answers = np.zeros(4)
    for row in x.numpy():
        hidden = np.tanh(np.tanh(np.tanh(row @ first / math.sqrt(32)) @ second) @ third)
        answers += hidden @ last / 6
    push = sum(answer * part for answer, part in zip(answers, projection, strict=True))
    length, w = np.linalg.norm(push), weight.numpy()
    cut = push if length <= 1 else push / length
    seen = cut if rule.clip_first else push
    reduced = np.sign(np.linalg.norm(w) - np.linalg.norm(w - seen))
    expected = np.sign(rule.target - np.linalg.norm(w)) * reduced * cut
    np.testing.assert_allclose(rule.delta(weight=weight, input=x, state=state).numpy(), expected, rtol=1e-9)


def test_constant_pushes_each_layer_by_a_matrix_of_its_own_that_never_changes():
    rule = registry.rule("constant").create({"scale": 2.0}, "here")
    source = torch.Generator().manual_seed(0)
    weights = [torch.randn(60, 90, generator=source, dtype=torch.float64) for _ in range(2)]
    states = [rule.init(weight) for weight in weights]
    first, second = (rule.delta(state=state).clone() for state in states)
    for state, push in zip(states, (first, second), strict=True):
        assert torch.equal(rule.delta(state=state), push)
        assert push.shape == (60, 90)
        assert push.dtype == torch.float64
        assert push.std().item() == pytest.approx(2.0 / math.sqrt(90), rel=0.05)
        assert abs(push.mean().item()) < 0.01
    assert abs(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1].item()) < 0.05


def test_a_grid_is_summed_up_by_point_not_by_seed(tmp_path):
    axes = {"decay": {"path": "training.optimizer.weight_decay", "values": [0.0, 0.01]}}
    found = list(run_cells(cells(work(axes=axes), ["bp"], [0, 1], {}), tmp_path, Settings(), Silent()))
    text = summary(found, tmp_path)
    lines = [line.split() for line in text.splitlines() if line.startswith("bp")]
    assert [line[1] for line in lines] == ["decay=0.0", "decay=0.01"]
    values = [result.metrics["alignment.fc2"].value or 0.0 for result in found if result.axes["decay"] == 0.0]
    assert lines[0][3] == f"{sum(values) / 2:+.3f}"
    assert "%" not in text


def test_the_summary_of_hebbian_rules_is_of_sgd_alignment_and_says_which_diverged(tmp_path):
    axes = {"rate": {"path": "training.optimizer.lr", "values": [0.01, 1e9]}}
    training = {"readout": "trained", "rest": {"lr": 0.1}}
    protocol = work(training=training, alignment={"window": 4, "sgd": True}, axes=axes)
    found = list(run_cells(cells(protocol, ["oja"], [0], {}), tmp_path, Settings(), Silent()))
    text = summary(found, tmp_path)
    calm, wild = (line.split() for line in text.splitlines() if line.startswith("oja"))
    assert "SGD alignment" in text
    assert calm[2] == f"{found[0].metrics['alignment.fc1.sgd'].value:+.3f}"
    assert wild[2:4] == ["diverged", "diverged"]


def test_the_board_says_that_an_alignment_is_with_gradient_descent():
    protocol = work(alignment={"window": 4, "sgd": True}, headline="alignment.fc2.sgd")
    result = run_cell(cell_of(protocol, optimizer={"lr": 0.1}), None, Settings(), Silent())
    text = "\n".join(section(protocol, [result]))
    assert "SGD alignment of layer `fc2`" in text
    assert "1.000 (1)" in text


def test_the_student_transformer_is_a_network_of_the_teachers_kind():
    """With the teacher's weights it gives the teacher's answers."""
    from hebbbench.data.teacher import _chain, _encoder, _perceptron

    model = registry.architecture("transformer")(input_shape=(32, 1, 1), classes=32).double()
    draws = np.random.RandomState(0)
    teacher = _chain([_encoder(32, draws), _perceptron([32, 128, 128, 32], draws)])
    again = np.random.RandomState(0)

    def fill(layer: Any) -> None:
        bound = 1 / math.sqrt(layer.in_features)
        layer.weight.copy_(torch.tensor(again.uniform(-bound, bound, tuple(layer.weight.shape))))
        if layer.bias is not None:
            layer.bias.copy_(torch.tensor(again.uniform(-bound, bound, tuple(layer.bias.shape))))

    with torch.no_grad():
        model.body.embed.table.weight.copy_(torch.tensor(again.standard_normal((16, 32))))
        for encoder in (model.body.encoder1, model.body.encoder2):
            for layer in (encoder.project, encoder.merge, encoder.feed[0], encoder.feed[2]):
                fill(layer)
        for layer in (model.body.fc1, model.body.fc2, model.head.linear):
            fill(layer)
        tokens = np.random.RandomState(1).randint(0, 16, (5, 32))
        np.testing.assert_allclose(model(torch.tensor(tokens)).numpy(), teacher(tokens), atol=1e-6)


@pytest.mark.parametrize("rule", ["bp", "dfa", "random_nn"])
def test_a_rule_learns_behind_an_encoder_of_tokens(rule):
    protocol = registry.protocol("sre-transformer")
    (cell,) = cells(protocol, [rule], [0], {"optimizer": "sgd", "decay": 0.0})
    learner = Learner(cell, (1, 1, 32), 32, torch.device("cpu"))
    before = learner.model.body.fc2.weight.clone()
    learner.step(torch.randint(0, 16, (8, 32)), torch.randn(8, 32), 0, 0.0)
    assert not torch.equal(before, learner.model.body.fc2.weight)
