"""One cell divided over processes: two with half a batch each are one with the whole."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import pytest
import torch

import forked
from hebbbench import cli, registry
from hebbbench.checks.network import undisturbed
from hebbbench.checks.shares import Meeting, Thread, sees_all_rows, side_by_side, sight_of
from hebbbench.errors import HebbBenchError, ProtocolError, RuleError
from hebbbench.processes import own_device
from hebbbench.record import store
from hebbbench.rng import generator
from hebbbench.training.learner import Learner
from hebbbench.world import ALONE, World, present

SHAPE, CLASSES, BATCH, STEPS = (8, 8, 1), 10, 7, 3


def learner(cell, world: World = ALONE, whole: bool = False) -> Learner:
    """In float64, so that only rounding far below any effect is left."""
    torch.set_default_dtype(torch.float64)
    try:
        return Learner(cell, SHAPE, CLASSES, torch.device("cpu"), world=world, whole=whole)
    finally:
        torch.set_default_dtype(torch.float32)


def train(trained: Learner) -> None:
    for number in range(STEPS):
        source = torch.Generator().manual_seed(number)
        x = torch.randn(BATCH, 1, *SHAPE[:2], generator=source, dtype=torch.float64)
        x = x.contiguous(memory_format=torch.channels_last) if trained.model.layout == "image" else x.flatten(1)
        part = trained.world.begin(BATCH)
        trained.step(x[part], (torch.arange(BATCH) % CLASSES)[part], number, 0.0)
        trained.world.end()


def gap(cell, processes: int = 2, whole: bool = False, build=learner) -> float:
    """The largest difference in parameters, statistics or states between one process and several."""
    meeting = Meeting(processes)
    one, several = build(cell), [build(cell, Thread(rank, meeting), whole) for rank in range(processes)]
    with undisturbed():
        train(one)
        side_by_side(several, train)
    pairs = [pair for other in several for pair in zip(tensors(one), tensors(other), strict=True)]
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


def tensors(trained: Learner) -> list[torch.Tensor]:
    states = [value for layer in trained.plasticity.layers for value in layer.state.values()]
    return [*trained.model.state_dict().values(), *states]


@pytest.mark.parametrize("rule", ["bp", "ghl", "softhebb", "hpca", "dfa", "brsf", "oja", "pc", "pepita"])
@pytest.mark.parametrize("base", ["digits-mlp", "digits-deephebb"])
def test_two_processes_with_their_own_rows_are_one(lab, base, rule):
    """Batch norm forward and backward, its running statistics, dropout, feedback drawn anew, shares of 3 and 4."""
    changes = {"architecture.options.dropout": 0.5} if base == "digits-deephebb" else {}
    assert gap(lab.cell(rule, lab.protocol(base, changes))) < 1e-11


@pytest.mark.parametrize(
    "rule", ["kwta", "liuson", "swta_fh", "bcm", "hwta_bcm_published", "ghl_reward", "random_nn", "hah"]
)
def test_two_processes_with_all_rows_are_one(lab, rule):
    cell = lab.cell(rule, lab.protocol("digits-deephebb"))
    assert gap(cell, whole=True) < 1e-12
    assert gap(cell) > 1e-9, "its own rows are enough"


def test_three_processes_are_one(lab):
    assert gap(lab.cell("ghl", lab.protocol("digits-deephebb")), 3) < 1e-12


def test_a_batch_with_fewer_samples_than_processes_is_each_ones_own(lab):
    assert gap(lab.cell("ghl"), processes=BATCH + 1) < 1e-12


def test_a_network_that_runs_again_backward_is_divided_too(lab):
    protocol = lab.protocol(
        "digits-deephebb",
        {"free": [], "architecture": {"name": "resnet", "options": {"depth": 8}}, "plastic": ["*conv*"]},
    )

    def again(cell, world: World = ALONE, whole: bool = False) -> Learner:
        torch.set_default_dtype(torch.float64)
        try:
            return Learner(cell, SHAPE, CLASSES, torch.device("cpu"), recompute=True, world=world, whole=whole)
        finally:
            torch.set_default_dtype(torch.float32)

    assert gap(lab.cell("ghl", protocol), build=again) < 1e-11


@pytest.mark.parametrize("recipe", [{"schedule": "layerwise"}, {"optimizer": {"lr": 0.1, "clip": 0.01}}])
def test_schedules_and_clipping_are_those_of_one(lab, recipe):
    assert gap(lab.cell("ghl", **recipe)) < 1e-12


def test_parts_are_disjoint_and_complete():
    for size in (1, 2, 3, 5):
        for samples in range(size, 12):
            meeting = Meeting(size)
            taken = [list(range(samples))[Thread(rank, meeting).part(samples)] for rank in range(size)]
            assert [sample for part in taken for sample in part] == list(range(samples))
            assert max(map(len, taken)) - min(map(len, taken)) <= 1


def test_one_process_is_alone():
    assert present() is ALONE
    value = torch.ones(3)
    assert ALONE.begin(3) == slice(0, 3)
    for reduce in (ALONE.sum, ALONE.mean, ALONE.weighted, ALONE.rows):
        assert reduce(value) is value


# What a rule is shown is measured


REFUSED = {
    "ff": "a wrong label is drawn for each place in the batch",
    "dtp": "noise is drawn for each place in the batch, and inverses learn from its sums",
    "node_perturbation": "noise is drawn for each place in the batch",
}


@pytest.mark.parametrize("rule", registry.rule_names())
def test_every_rule_is_divided_or_refused_by_name(rule):
    if rule in REFUSED:
        name = registry.rule(rule).__name__
        with pytest.raises(RuleError, match=rf"rule {name}: from a batch divided .* runs on one process"):
            sight_of(rule)
    else:
        assert sight_of(rule) in ("own rows", "all rows")


def test_hyperparameters_decide_too(lab):
    path = lab.root / "centred.py"
    path.write_text(
        '"""Made by a test."""\nfrom hebbbench import Rule, hebb\n\n\nclass Centred(Rule):\n    by: float = 0.0\n\n'
        "    def delta(self, pre, post):\n        return hebb(post - self.by * post.mean(0), pre)\n"
    )
    protocol = lab.protocol()
    for value, all_rows in ((0.0, False), (1.0, True), ([0.0, 1.0], True)):
        assert sees_all_rows(lab.cell(str(path), protocol, hyperparameters={"by": value})) is all_rows


def test_a_procedure_with_a_statistic_of_the_batch_is_refused(lab):
    path = lab.root / "centred_step.py"
    path.write_text(
        '"""Made by a test."""\nfrom hebbbench import Rule\n\n\nclass Centred(Rule):\n'
        "    def step(self, network, input):\n        u = network.blocks[0].potential(input)\n"
        "        return (u - u.detach().mean(0)).square().mean()\n"
    )
    with pytest.raises(RuleError, match=r"rule Centred: .* \(body.fc1.weight differs by up to .*Leave torchrun out"):
        sight_of(str(path))


def test_protocols_of_alignment_are_refused(lab):
    cell = lab.cell("bp", lab.protocol("digits-mlp", {"alignment": {"window": 5}}))
    with pytest.raises(ProtocolError, match="measures alignment"):
        sees_all_rows(cell)


def test_the_device_of_a_process(monkeypatch):
    assert own_device("cpu", 1, 2) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [own_device(None, local, 2) for local in (0, 1)] == ["cuda:0", "cuda:1"]
    with pytest.raises(HebbBenchError, match="4 processes on this host, but 2 GPUs"):
        own_device("cuda", 3, 4)
    with pytest.raises(HebbBenchError, match="cannot share one device"):
        own_device("cuda:1", 0, 2)


def test_what_torchrun_did_not_start_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    asked = ["-p", "digits-mlp", "-r", "bp"]
    for command, said in (
        (["run", *asked], "but RANK, "),
        (["run", *asked, "--executor", "local"], "Choose one of the two"),
        (["tune", *asked, "--try", "optimizer.lr=1"], "tune runs on one process"),
    ):
        monkeypatch.setattr(sys, "argv", ["hebbbench", *command])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 2
        assert said in capsys.readouterr().err


# Real processes: all of the command line, in two of them

UNRULY = """grad, weight:
        rank, marker = __import__('os').environ.get('RANK'), __import__('pathlib').Path({marker!r})
        if rank == '1' and weight.shape[0] == 16 and not marker.exists():
            marker.touch()
            {action}
        return -grad"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def process(rank: int, environ: dict[str, str], ports: list[int], commands: list[list[str]], statuses: Any) -> None:
    """What one of two processes does: command after command."""
    os.environ.clear()
    os.environ.update(environ)
    torch.set_num_threads(1)
    for port, command in zip(ports, commands, strict=True):
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        sys.argv = ["hebbbench", *command]
        try:
            cli.main()
            status = 0
        except SystemExit as left:
            status = int(left.code or 0)
        statuses.put((rank, port, status))


@pytest.mark.slow
def test_the_command_line_on_two_processes(lab):
    changes = {"diagnostics": True, "data.validation": 300, "published_epoch": "best"}
    protocol = lab.protocol_file("digits-mlp", changes)
    stopping, failing = (
        lab.rule(name, UNRULY.format(marker=str(lab.root / f"{name} once"), action=action))
        for name, action in (("stopping", "__import__('signal').raise_signal(15)"), ("failing", "raise ValueError(3)"))
    )
    kept = lab.root / "two"
    common = ["run", "-p", protocol, "--device", "cpu", "--cache", str(lab.cache), "--results", str(kept)]
    undisturbed, disturbed = [*common, "-r", "kwta", "-r", stopping], [*common, "-r", failing]
    commands = [undisturbed, undisturbed, disturbed]
    statuses = forked.server.Queue()
    ports = sorted(free_port() for _ in commands)
    environ = dict(os.environ)
    both = [forked.server.Process(target=process, args=(r, environ, ports, commands, statuses)) for r in (0, 1)]
    for child in both:
        child.start()
    found = sorted(statuses.get(timeout=120) for _ in range(2 * len(commands)))
    for child in both:
        child.join()
    assert [status for *_, status in found] == 2 * [130, 0, 2]

    results = {path.parent.name: store.load(path) for path in kept.rglob("*.json")}
    for rule, name in (("kwta", "kwta"), ("bp", "stopping")):
        one, two = lab.run(lab.cell(rule, lab.protocol("digits-mlp", changes))), results[name]
        assert (one.environment.processes, two.environment.processes) == (1, 2)
        assert two.cost.resumed == (name == "stopping")
        assert operations(two.work) == operations(one.work)
        assert two.work.step_bytes > one.work.step_bytes  # each process reads all weights
        assert set(two.metrics) == set(one.metrics)
        for metric in one.metrics:
            if "seconds" not in metric:
                assert two.metrics[metric].value == pytest.approx(one.metrics[metric].value, abs=2e-3), metric
        for curve, points in one.curves.items():
            assert two.curves[curve] == [pytest.approx(point, abs=2e-3) for point in points], curve
    assert results["failing"].status == "failed"
    assert results["failing"].reason == "process 1: ValueError during training: 3 (failing.py, line 12)"


def operations(work: Any) -> dict[str, Any]:
    layers = [{name: value for name, value in layer if not name.endswith("_bytes")} for layer in work.layers]
    return {"forward": work.forward_flops, "step": work.step_flops, "layers": layers}


def test_draws_of_augmentation_are_those_of_the_whole_batch(lab):
    from hebbbench.data.batches import Batches
    from hebbbench.data.decoding import ahead

    images = torch.randint(0, 256, (20, 8, 8, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batches = Batches(
        images.numpy(),
        torch.arange(20).numpy(),
        device="cpu",
        mean=[0.5],
        std=[0.5],
        layout="image",
        augment="crop-flip",
    )
    parts = torch.arange(20).split(7)

    def made(world: World):
        return list(ahead(batches, parts, (generator(0, "augmentation", i) for i in range(len(parts))), world))

    meeting = Meeting(2)
    first, second = (made(Thread(rank, meeting)) for rank in (0, 1))
    for whole, *halves in zip(made(ALONE), first, second, strict=True):
        for found, pieces in zip(whole, zip(*halves, strict=True), strict=True):
            assert torch.equal(found, torch.cat(pieces))
