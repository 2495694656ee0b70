"""Whatever a step touches lies on the learner's device: run on a pretended one (see `pretended.py`)."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from hebbbench import Rule, registry
from hebbbench.cell import cells
from hebbbench.data.decoding import Decoded, ahead
from hebbbench.data.spec import DATASETS, dataset_spec
from hebbbench.plasticity.terms import hebb
from hebbbench.progress import Silent
from hebbbench.protocol import Protocol
from hebbbench.recipe import Recipe
from hebbbench.training import grid
from hebbbench.training.grid import run_cells
from hebbbench.training.learner import Learner
from hebbbench.training.run import Settings, run_cell
from pretended import CUDA, WrongDevice, all_there, place, pretended_cuda
from test_encoded import SPEC, as_folder, samples
from test_encoded import load as load_images


@pytest.fixture(autouse=True)
def one_number_of_threads(monkeypatch):
    """The pretended device computes where the CPU does, and bits are compared."""
    monkeypatch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))


def cell_of(rule: str, protocol: str, changes: dict[str, Any] | None = None, recipe: dict[str, Any] | None = None):
    plain = registry.protocol(protocol).model_dump(mode="json", exclude={"axes", "published", "priority"})
    free = sorted({*plain["free"], *(recipe or {})})
    chosen = None if recipe is None else Recipe.model_validate({"provenance": "default", **recipe})
    (cell,) = cells(Protocol.model_validate({**plain, "free": free, **(changes or {})}), [rule], [0], {}, chosen)
    return cell


def two_steps(cell: Any, device: torch.device, only: int | None = None, **options: Any) -> Learner:
    learner = Learner(cell, (8, 8, 1), 10, device, **options)
    x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x = (x if learner.model.layout == "image" else x.flatten(1)).to(device)
    labels = torch.arange(8).to(device)
    learner.step(x, labels, 0, 0.0, only)
    learner.step(x, labels, 1, 0.5, only)
    assert learner.diverged() is None
    learner.logits(x)
    learner.features(x)
    return learner


def same_on_both(cell: Any, only: int | None = None, rounds: bool = False, **options: Any) -> None:
    """Two steps run on the pretended device, leave everything on it, and the weights that they leave on the CPU."""
    here = two_steps(cell, torch.device("cpu"), only, **options)
    with pretended_cuda() as device:
        learner = two_steps(cell, device, only, **options)
        if rounds:
            for there, value in zip(learner.model.parameters(), here.model.parameters(), strict=True):
                torch.testing.assert_close(there.cpu(), value, rtol=1e-5, atol=1e-7)
        else:
            assert learner.digest() == here.digest()
        state = learner.state_dict()
        assert all_there([state["model"], state["rule"], state.get("procedure")])
        learner.load_state_dict(state)


ROUNDS = {"forward_gradient": "torch differentiates forwards by other operations where they are watched"}
"""Rules whose bits the pretence itself changes, and why."""


@pytest.mark.parametrize("rule", registry.rule_names())
@pytest.mark.parametrize("protocol", ["digits-mlp", "digits-deephebb"])
def test_a_step_stays_on_its_device(rule, protocol):
    same_on_both(cell_of(rule, protocol), rounds=rule in ROUNDS)


TRAINING = {"epochs": 1, "batch_size": 8, "optimizer": {"lr": 0.01}}
SGD = {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4, "l1": 1e-4, "clip": 1.0}
RECIPES = {
    "sgd": ("ghl", {}, {"optimizer": SGD, "annealing": "cosine"}),
    "adam": ("ghl", {}, {"optimizer": {"name": "adam", "lr": 1e-3}, "rest": {"name": "adamw", "lr": 1e-3}}),
    "drawn anew": ("softhebb", {}, {"optimizer": {"lr": 0.01}, "init": {"law": "normal", "radius": 25.0}}),
    "noise": ("bp", {"noise": 0.01}, {}),
    "sparsity": ("bp", {"sparsity": 0.1}, {}),
    "a read-out that is trained": ("oja", {"readout": "trained"}, {"optimizer": {"lr": 0.01}, "rest": {"lr": 0.1}}),
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("protocol", ["digits-mlp", "digits-deephebb"])
def test_what_a_recipe_asks_for_stays_there(protocol, name):
    rule, training, recipe = RECIPES[name]
    same_on_both(cell_of(rule, protocol, {"training": {**TRAINING, **training}}, recipe))


@pytest.mark.parametrize("rule", ["bp", "ghl", "ghl_fa", "softhebb", "hpca"])
def test_products_in_bfloat16_stay_there(rule):
    same_on_both(cell_of(rule, "digits-deephebb", {"precision": "bfloat16"}))


@pytest.mark.parametrize("rule", ["bp", "dfa", "softhebb"])
def test_one_layer_at_a_time_stays_there(rule):
    same_on_both(cell_of(rule, "digits-deephebb", recipe={"schedule": "layerwise", "optimizer": {"lr": 0.01}}), only=1)


@pytest.mark.parametrize("rule", ["bp", "dfa", "brsf", "softhebb"])
@pytest.mark.parametrize("recompute", [False, True])
def test_a_residual_network_stays_there(rule, recompute):
    changes = {
        "architecture": {"name": "resnet", "options": {"depth": 8, "width": 4}},
        "plastic": ["all convolutions"],
        "free": ["optimizer"],
    }
    same_on_both(cell_of(rule, "digits-deephebb", changes, {"optimizer": {"lr": 0.01}}), recompute=recompute)


VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2}
NETWORKS = {
    "vgg": ("cifar10-vgg", {"depth": 16, "width": 2, "hidden": 8, "dropout": 0.0}),
    "fasthebb": ("cifar10-fasthebb", {"widths": [4, 4, 6, 6], "hidden": 8, "dropout": 0.0}),
    "transformer": ("sre-transformer", {"size": 8, "layers": 1, "heads": 2, "widths": [8, 8], "biases": "none"}),
    "timm": ("cifar10-vit", {"model": "vit_tiny_patch16_224", "arguments": VIT}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_larger_networks_stay_there(name):
    if name == "timm":
        pytest.importorskip("timm")
    protocol, options = NETWORKS[name]
    cell = cell_of("ghl", protocol, {"architecture": {"name": name, "options": options}}, {"optimizer": {"lr": 0.01}})
    data = dataset_spec(cell.work.data.dataset)

    def one_step(device: torch.device) -> Learner:
        learner = Learner(cell, data.shape, data.classes, device)
        tokens = learner.model.layout == "tokens"
        height, width, channels = data.shape
        x = torch.ones(2, height, dtype=torch.int64) if tokens else torch.ones(2, channels, height, width)
        targets = torch.ones(2, data.classes) if cell.work.loss == "mse" else torch.arange(2)
        learner.step(x.to(device), targets.to(device), 0, 0.0)
        return learner

    here = one_step(torch.device("cpu"))
    with pretended_cuda() as device:
        there = one_step(device)
        assert there.digest() == here.digest()
        assert all_there(there.state_dict()["model"])


CELLS = {
    "with diagnostics and augmentation": ("bp", "digits-deephebb", {"diagnostics": True, "data.augment": "crop-flip"}),
    "procedure": ("pc", "digits-mlp", {"training.epochs": 1}),
    "local, with dropout before both read-outs": (
        "softhebb",
        "digits-deephebb",
        {"probe.dropout": 0.5, "published_probe": {"epochs": 2, "batch_size": 64, "lr": 0.01, "dropout": 0.5}},
    ),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_whole_cell_measures_there_what_it_measures_here(lab, name):
    rule, protocol, changes = CELLS[name]
    cell = lab.cell(rule, lab.protocol(protocol, changes), optimizer={"lr": 0.001})
    here = lab.run(cell)
    settings = Settings(device="cuda", cache=lab.cache, checkpoint_seconds=0.0)
    with pretended_cuda():
        there = run_cell(cell, None, settings, Silent())
    assert here.status == there.status == "ok", there.reason
    assert there.environment.device == "cuda"
    assert (there.weights, there.measurement()) == (here.weights, here.measurement())


@pytest.mark.parametrize("sgd", [False, True])
def test_alignment_is_measured_there(tmp_path, sgd):
    plain = registry.protocol("sre-mlp").model_dump(mode="json", exclude={"axes", "published", "priority"})
    plain["training"] |= {"epochs": 1, "batch_size": 2000}
    plain["alignment"] = {"window": 4, "sgd": sgd}
    (cell,) = cells(Protocol.model_validate(plain), ["bp"], [0], {})
    here = run_cell(cell, None, Settings(device="cpu", cache=tmp_path), Silent())
    with pretended_cuda():
        there = run_cell(cell, None, Settings(device="cuda", cache=tmp_path), Silent())
    assert here.status == there.status == "ok", there.reason
    assert there.measurement() == here.measurement()


@pytest.mark.parametrize("augment", ["none", "resized-crop-flip"])
def test_decoded_images_arrive_there(tmp_path, augment, monkeypatch):
    monkeypatch.setitem(DATASETS, SPEC.name, SPEC)
    split = load_images(as_folder(tmp_path / "root", samples()), tmp_path / "cache").train
    parts = torch.arange(12).split(5)

    def fed(device: torch.device) -> list[tuple[Tensor, Tensor]]:
        batches = Decoded(split, 16, device=device, mean=[0.5] * 3, std=[0.2] * 3, augment=augment, workers=0)
        sources = (torch.Generator().manual_seed(number) for number in range(3))
        return list(ahead(batches, [part.to(device) for part in parts], sources))

    here = fed(torch.device("cpu"))
    with pretended_cuda() as device:
        there = fed(device)
        assert all_there([list(pair) for pair in there])
    for one, two in zip(here, there, strict=True):
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])


TOGETHER = {
    "momentum, noise and decay": ("bp", {"noise": 0.01}, {"optimizer": {"lr": 0.01, "momentum": 0.9, "l1": 1e-4}}),
    "adam, clipped": ("bp", {}, {"optimizer": {"name": "adam", "lr": 1e-3, "weight_decay": 1e-3, "clip": 0.1}}),
    "the direct path": ("dfa", {}, {"optimizer": {"lr": 0.01}}),
    "sparsity": ("bp", {"sparsity": 0.1}, {"optimizer": {"lr": 0.01}}),
    "a rule that is local": ("oja", {}, {"optimizer": {"lr": 0.01}}),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_networks_trained_together_stay_there(tmp_path, name):
    rule, training, recipe = TOGETHER[name]
    plain = registry.protocol("sre-mlp").model_dump(mode="json", exclude={"axes", "published", "priority"})
    plain["training"] |= {"epochs": 1, "batch_size": 4000, **training}
    protocol = Protocol.model_validate({**plain, "alignment": {"window": 2}})
    planned = cells(protocol, [rule], [0, 1], {}, Recipe.model_validate({"provenance": "default", **recipe}))
    here = list(run_cells(planned, tmp_path / "here", Settings(device="cpu", cache=tmp_path), Silent()))
    with (
        pretended_cuda(),
        mock.patch.object(grid, "run_cell", side_effect=AssertionError("trained alone")),
        # In this thread, because the pretended device is this thread's.
        mock.patch.object(grid, "side_by_side", lambda pieces, lanes, stop, device: (piece(stop) for piece in pieces)),
    ):
        there = list(run_cells(planned, tmp_path / "there", Settings(device="cuda", cache=tmp_path), Silent()))
    assert [(result.status, result.environment.device) for result in there] == [("ok", "cuda")] * 2
    for one, two in zip(here, there, strict=True):
        assert (two.weights, two.measurement()) == (one.weights, one.measurement())


def test_a_rule_that_forgets_the_device_is_seen():
    class Forgetful(Rule):
        def delta(self, pre: Any, post: Tensor, weight: Tensor) -> Tensor:
            return hebb(post, pre) + torch.zeros(weight.shape)

    registry_rule, registry.rule = registry.rule, lambda name: Forgetful
    try:
        cell = cell_of("hebb", "digits-mlp")
        two_steps(cell, torch.device("cpu"))
        with pretended_cuda() as device, pytest.raises(WrongDevice, match=r"add: tensors on cpu, cuda:0"):
            two_steps(cell, device)
    finally:
        registry.rule = registry_rule


def test_the_pretended_device_refuses_what_torch_refuses():
    with pretended_cuda() as device:
        there, here = torch.ones(3, device=device), torch.ones(3)
        assert (there.device, there.is_cuda, here.device.type, place(there + 1)) == (CUDA, True, "cpu", CUDA)
        assert place(there[torch.tensor([0, 2])]) == place(there * torch.tensor(2.0)) == CUDA
        assert place(there.cpu()) == torch.device("cpu")
        for refused in (
            lambda: there + here,
            lambda: there.numpy(),
            lambda: here[there.long()],
            lambda: torch.randn(3, device=device, generator=torch.Generator()),
            lambda: there.normal_(generator=torch.Generator()),
            lambda: here.normal_(generator=torch.Generator(device)),
            lambda: torch.autocast("cpu", torch.bfloat16),
        ):
            with pytest.raises(WrongDevice):
                refused()
