"""On a real GPU: what the pretended device of test_devices.py cannot show. Skipped where there is none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hebbbench import registry
from hebbbench.progress import Silent
from hebbbench.sections import Probe
from hebbbench.training.device import prepare_torch
from hebbbench.training.grid import run_cells
from hebbbench.training.learner import Learner
from hebbbench.training.probe import Labelled, LinearProbe
from hebbbench.training.recording import CudaRecorder
from hebbbench.training.replay import Replay, can_replay
from hebbbench.training.run import Settings, run_cell
from test_devices import cell_of
from test_waiting import WAITING

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

GPU = torch.device("cuda")
CPU = torch.device("cpu")
PROTOCOLS = ["digits-mlp", "digits-deephebb"]
CLOSE = {"pc": 2e-2}
"""Rules whose float32 differs by more from float64 on the CPU itself: activity that settles in convolutions."""
COPIES = {"random_nn"}
"""Rules that copy numbers from the host in a step, which a recording cannot."""
DRAWS_THERE = {"brsf"}
"""Rules whose draws in a step are made on the device, so the CPU's are others."""
SIGNED = {"sign", "sign_fa", "ghl", "ghl_fa", "ghl_shuffled", "ghl_matched", "ghl_reward"}
"""Rules that take signs, which turn where a gradient is all but zero."""


@pytest.fixture(autouse=True)
def as_in_a_run():
    """With float32 products in float32: what comes of small differences would drown in TF32's rounding."""
    prepare_torch("cuda")


def batch(learner: Learner, size: int = 32) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x = x if learner.model.layout == "image" else x.flatten(1)
    return x.to(learner.device), (torch.arange(size) % 10).to(learner.device)


def learner_of(rule: str, protocol: str, device: torch.device) -> Learner:
    return Learner(cell_of(rule, protocol), (8, 8, 1), 10, device)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("rule", registry.rule_names())
def test_a_rules_update_is_that_of_the_cpu(rule, protocol):
    if rule in DRAWS_THERE:
        pytest.skip("its draws are the device's")
    updates = []
    for device in (CPU, GPU):
        learner = learner_of(rule, protocol, device)
        learner.prepare(0)
        learner.find_update(*batch(learner))
        updates.append([weight.grad.cpu() for weight in learner.plasticity.weights() if weight.grad is not None])
    for here, there in zip(*updates, strict=True):
        far = (here - there).abs() > CLOSE.get(rule, 1e-3) * here.abs().max() + 1e-7
        assert far.float().mean() <= (0.01 if rule in SIGNED else 0.0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("rule", registry.rule_names())
def test_steps_are_replayed_as_graphs_and_leave_the_same(rule, protocol):
    eager, learner = learner_of(rule, protocol, GPU), learner_of(rule, protocol, GPU)
    if not can_replay(learner):
        pytest.skip("its steps are not to be replayed")
    said: list[str] = []
    replay = Replay(learner, CudaRecorder(GPU), said.append)
    x, labels = batch(learner)
    for number in range(6):
        part = slice(0, 32 if number % 3 < 2 else 5)
        eager.step(x[part], labels[part], number, number / 6)
        replay.step(x[part], labels[part], number, number / 6)
    assert not said or rule in WAITING or rule in COPIES, said
    assert not CudaRecorder.failed
    for mine, other in zip(learner.model.parameters(), eager.model.parameters(), strict=True):
        far = (mine - other).abs() > 1e-4 * other.abs().max() + 1e-6
        assert far.float().mean() <= (0.01 if rule in SIGNED else 0.0)


DROPS = {
    "free": ["optimizer"],
    "architecture": {"name": "mlp", "options": {"widths": [16, 12], "norm": "batch", "biases": "all", "dropout": 0.5}},
}


@pytest.mark.parametrize("rule", ["bp", "fa", "usf", "frsf", "brsf", "dfa", "ghl_fa", "pc", "ep", "dtp", "pepita"])
def test_steps_with_biases_and_dropout_are_replayed_and_leave_the_same(rule):
    eager, learner = (Learner(cell_of(rule, "digits-mlp", DROPS), (8, 8, 1), 10, GPU) for _ in range(2))
    said: list[str] = []
    replay = Replay(learner, CudaRecorder(GPU), said.append)
    x, labels = batch(learner)
    for number in range(6):
        eager.step(x, labels, number, number / 6)
        replay.step(x, labels, number, number / 6)
    assert not said or rule in WAITING, said
    for mine, other in zip(learner.model.parameters(), eager.model.parameters(), strict=True):
        far = (mine - other).abs() > 1e-4 * other.abs().max() + 1e-6
        assert far.float().mean() <= (0.01 if rule in SIGNED else 0.0)


@pytest.mark.parametrize("rule", ["bp", "ghl", "softhebb", "hpca", "dfa", "dtp"])
def test_a_cell_ends_where_it_ends_on_the_cpu(rule, tmp_path):
    cell = cell_of(rule, "digits-deephebb")
    results = [
        run_cell(cell, None, Settings(device=device, cache=tmp_path / device), Silent()) for device in ("cpu", "cuda")
    ]
    here, there = (result.metrics["probe.test.accuracy"].value for result in results)
    assert [result.status for result in results] == ["ok", "ok"], results[1].reason
    assert there == pytest.approx(here, abs=0.04)


@pytest.mark.parametrize("precision", ["mixed", "bfloat16"])
@pytest.mark.parametrize("rule", ["bp", "ghl", "softhebb"])
def test_products_in_bfloat16_are_close_to_those_of_float32(rule, precision):
    grads = []
    for chosen in ("float32", precision):
        learner = Learner(cell_of(rule, "digits-deephebb", {"precision": chosen}), (8, 8, 1), 10, GPU)
        learner.find_update(*batch(learner))
        grads.append(torch.cat([weight.grad.flatten() for weight in learner.plasticity.weights()]))
    assert torch.nn.functional.cosine_similarity(*grads, dim=0) > (0.9 if rule == "ghl" else 0.99)


@pytest.mark.parametrize("rule", ["bp", "fa", "brsf", "dfa", "ghl_fa", "sign_fa"])
@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_feedback_paths_take_products_in_bfloat16(rule, norm):
    options = {"widths": [16, 12], "norm": norm, "head_norm": norm}
    changes = {"precision": "bfloat16", "free": ["optimizer"], "architecture": {"name": "mlp", "options": options}}
    learner = Learner(cell_of(rule, "digits-mlp", changes), (8, 8, 1), 10, GPU)
    learner.step(*batch(learner), 0, 0.0)
    assert learner.diverged() is None


def test_small_networks_train_together_as_they_do_on_the_cpu(tmp_path):
    changes = {"training": {"epochs": 1, "batch_size": 256, "optimizer": {"lr": 0.1}}}
    cell = cell_of("bp", "sre-mlp", changes)
    found = []
    for device in ("cpu", "cuda"):
        settings = Settings(device=device, cache=tmp_path / "cache")
        (result,) = run_cells([cell], tmp_path / device, settings, Silent())
        found.append(result.metrics["alignment.fc2"].value)
    assert found[1] == pytest.approx(found[0], abs=1e-3)


def test_the_probes_steps_are_replayed_and_leave_the_same(monkeypatch):
    source = torch.Generator().manual_seed(0)
    data = Labelled(torch.randn(300, 40, generator=source).to(GPU), (torch.arange(300) % 10).to(GPU))
    spec = Probe(epochs=4, batch_size=64, lr=0.01, dropout=0.5, halve_at=[0.5], statistics_samples=0)
    replayed, eager = (LinearProbe(spec, 40, 10, 0, GPU) for _ in range(2))
    for _ in range(spec.epochs):
        replayed.train_epoch(data)
    assert replayed._replayed is not None
    assert replayed._replayed.recording is not None
    monkeypatch.setattr(CudaRecorder, "failed", True)
    for _ in range(spec.epochs):
        eager.train_epoch(data)
    assert eager._replayed is not None
    assert eager._replayed.recording is None
    torch.testing.assert_close(replayed.linear.weight, eager.linear.weight, rtol=1e-4, atol=1e-6)
