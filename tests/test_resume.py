"""A cell stopped anywhere, in any way, goes on and measures what it would have measured undisturbed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch

import forked
from conftest import At, Killed, Lab
from hebbbench.data import load
from hebbbench.errors import ResultError, RunInterrupted
from hebbbench.recipe import Recipe
from hebbbench.training.checkpoint import Checkpoint

SOFT = {"optimizer": {"lr": 0.01}, "init": {"law": "normal", "radius": 25.0}}
ADAM = {"optimizer": {"name": "adam", "lr": 0.01}}
MOMENTUM = {"optimizer": {"lr": 0.05, "momentum": 0.9, "nesterov": True}, "annealing": "cosine"}
TRACE = {
    "delta": "grad, state: state['trace'].mul_(0.9).add_(grad, alpha=0.1); return -state['trace']",
    "more": "    def init(self, weight):\n        return {'trace': torch.zeros_like(weight)}\n",
}


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def die() -> None:
    raise Killed


def signs_of_life(lab: Lab, cell) -> int:
    """How often a whole run of the cell says something: each is a place where it may be stopped."""
    seen = At()
    lab.run(cell, seen, every=0.0)
    return seen.count


def resumed(lab: Lab, cell):
    """The cell's result after going on, which must be from a checkpoint."""
    seen = At()
    result = lab.run(cell, seen)
    assert result.cost.resumed >= 1
    assert any(re.search(r"checkpoint.* step \d+", text) for text in seen.said)
    return result


def saved_in(path):
    """What a checkpoint file holds."""
    saved = Checkpoint(path.parent, path.stem).load()
    assert saved is not None
    return saved


# Anywhere


@pytest.mark.parametrize("recipe", [MOMENTUM, {"schedule": "layerwise", **ADAM}], ids=["joint", "layerwise"])
def test_killed_at_any_moment_a_cell_goes_on_with_the_same_bits(lab, recipe, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a process dies here, not the machine
    cell = lab.cell("ghl", **recipe)
    whole = lab.run(cell)
    last = signs_of_life(lab, cell)
    assert last > 20
    for moment in range(1, last + 1):
        with pytest.raises(Killed):
            lab.run(cell, At(moment, die), every=0.0)
        assert lab.run(cell).measurement() == whole.measurement(), f"killed at {moment} of {last}"


@pytest.mark.parametrize(
    ("rule", "base", "changes", "recipe"),
    [
        ("bp", "digits-mlp", {}, ADAM),
        ("bp", "digits-mlp", {}, MOMENTUM),
        ("bp", "digits-mlp", {"architecture.options.dropout": 0.5}, {}),
        ("bp", "digits-deephebb", {"data.augment": "crop-flip"}, {}),
        ("softhebb", "digits-mlp", {}, SOFT),
        ("softhebb", "digits-mlp", {}, {"schedule": "layerwise", **SOFT}),
        ("trace", "digits-mlp", {}, {}),
        ("trace", "digits-mlp", {}, {"schedule": "layerwise"}),
    ],
    ids=["adam", "momentum", "dropout", "crop-flip", "local", "local layerwise", "trace", "trace layerwise"],
)
@pytest.mark.parametrize("step", [3, 7])
def test_stopped_in_training_a_cell_goes_on_with_the_same_bits(lab, rule, base, changes, recipe, step):
    rule = lab.rule("trace", **TRACE) if rule == "trace" else rule
    cell = lab.cell(rule, lab.protocol(base, changes), **recipe)
    whole = lab.run(cell)
    with pytest.raises(RunInterrupted, match=rf"stopped after step {step} of \d+\. Run the same command again"):
        lab.run(cell, At(step, ctrl_c, "training"))
    assert resumed(lab, cell).measurement() == whole.measurement()


def test_a_rules_own_state_matters_and_survives(lab):
    trace = lab.cell(lab.rule("trace", **TRACE))
    forgetful = lab.rule("forgetful", TRACE["delta"].replace("mul_(0.9)", "mul_(0)"), TRACE["more"])
    assert lab.run(trace).weights != lab.run(lab.cell(forgetful)).weights
    with pytest.raises(RunInterrupted):
        lab.run(trace, At(4, ctrl_c, "training"))
    (path,) = lab.checkpoints()
    saved = saved_in(path)["learner"]["rule"]
    assert saved["body.fc1"]["trace"].abs().max() > 0


def test_stopped_in_the_second_layers_stage_a_cell_goes_on_there(lab):
    cell = lab.cell("ghl", schedule="layerwise")
    whole = lab.run(cell)
    with pytest.raises(RunInterrupted, match="after step 13 of 20"):
        lab.run(cell, At(13, ctrl_c, "training"))
    (path,) = lab.checkpoints()
    state = saved_in(path)["state"]
    assert (state["stage"], state["epoch"], state["batch"]) == (1, 0, 3)
    assert resumed(lab, cell).measurement() == whole.measurement()


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_stopped_in_the_probe_a_cell_goes_on_there(lab, epoch):
    cell = lab.cell("bp")
    whole = lab.run(cell)
    with pytest.raises(RunInterrupted, match=f"after probe epoch {epoch} of 3"):
        lab.run(cell, At(epoch, ctrl_c, "linear probe"))
    seen = At(phase="linear probe")
    assert lab.run(cell, seen).measurement() == whole.measurement()
    assert seen.count == 3 - epoch


def test_stopped_again_and_again_a_cell_still_gives_the_same_bits_and_counts_its_parts(lab):
    cell = lab.cell("bp", **MOMENTUM)
    whole = lab.run(cell)
    stops, patience = 0, 2
    while True:
        try:
            result = lab.run(cell, At(patience, ctrl_c))
            break
        except RunInterrupted as stop:
            stops += 1
            # Only whole steps and epochs are kept: whoever always stops while features are extracted never gets on.
            patience = patience + 1 if "give it longer" in str(stop) else 2
            assert stops < 100
    assert stops > 5
    assert result.cost.resumed == stops
    assert (result.cost.steps, result.cost.samples_seen) == (whole.cost.steps, whole.cost.samples_seen)
    assert result.measurement() == whole.measurement()


def test_a_stop_that_gained_nothing_says_so(lab):
    cell = lab.cell("bp", **MOMENTUM)
    with pytest.raises(RunInterrupted) as first:
        lab.run(cell, At(1, ctrl_c, "extracting features"))
    assert "give it longer" not in str(first.value)  # training was kept
    with pytest.raises(RunInterrupted, match="after probe epoch 0 of 3, where it began: features are extracted anew"):
        lab.run(cell, At(1, ctrl_c, "extracting features"))
    with pytest.raises(RunInterrupted) as third:
        lab.run(cell, At(2, ctrl_c, "linear probe"))
    assert "give it longer" not in str(third.value)  # a probe's epoch was kept


def test_a_resumed_cells_cost_adds_up_its_parts(lab):
    cell = lab.cell("bp")
    with pytest.raises(RunInterrupted):
        lab.run(cell, At(10, ctrl_c, "training"))
    (path,) = lab.checkpoints()
    saved = saved_in(path)
    assert saved["state"]["wall"] >= saved["state"]["seconds"] > 0
    saved["state"] |= {"seconds": 1000.0, "wall": 2000.0}
    Checkpoint(path.parent, path.stem).save(saved)
    cost = resumed(lab, cell).cost
    assert cost.train_seconds >= 1000
    assert cost.wall_seconds >= 2000


def test_stopped_while_the_test_split_is_read_a_cell_goes_on_there(lab):
    whole = lab.run(lab.cell("bp"))
    with pytest.raises(RunInterrupted, match="after probe epoch 3 of 3"):
        lab.run(lab.cell("bp"), At(1, ctrl_c, "test"), results=lab.results)
    assert list(lab.results.rglob("*.json")) == []
    seen = At(phase="linear probe")
    assert lab.run(lab.cell("bp"), seen).measurement() == whole.measurement()
    assert seen.count == 0


def test_a_second_ctrl_c_stops_at_once(lab):
    def impatient() -> None:
        ctrl_c()
        ctrl_c()

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        lab.run(lab.cell("bp"), At(2, impatient, "training"))
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_termination_request_stops_like_ctrl_c(lab, number):
    before = signal.signal(number, signal.SIG_DFL)  # whoever started the tests may have ignored it, as nohup does
    try:
        with pytest.raises(RunInterrupted):
            lab.run(lab.cell("bp"), At(2, lambda: signal.raise_signal(number), "training"))
    finally:
        signal.signal(number, before)


def test_a_run_that_is_to_outlive_its_terminal_does(lab, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        result = lab.run(lab.cell("bp"), At(2, lambda: signal.raise_signal(signal.SIGHUP), "training"))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert result.status == "ok"


# What is resumed, and what is not


def test_a_finished_cell_leaves_no_checkpoint(lab):
    lab.run(lab.cell("bp"), every=0.0)
    assert lab.checkpoints() == []


def test_a_cell_run_by_force_starts_anew(lab):
    cell = lab.cell("bp")
    with pytest.raises(RunInterrupted):
        lab.run(cell, At(4, ctrl_c, "training"))
    assert lab.run(cell, force=True).cost.resumed == 0


def test_anything_that_decides_a_number_makes_another_cell(lab):
    data = load("digits", cache=lab.cache).identity
    base = lab.cell("bp")
    outside = lab.rule("outside", "grad: return -grad")
    hashes = [lab.cell(outside).identity(data)]
    lab.rule("outside", "grad: return -grad * 1.0")
    changed = {
        "another seed": lab.cell("bp", seed=1),
        "another rule": lab.cell("sign"),
        "the same rule, other source": lab.cell(outside),
        "a rate": lab.cell("bp", optimizer={"lr": 0.01}),
        "momentum": lab.cell("bp", optimizer={"lr": 0.05, "momentum": 0.8}),
        "the optimizer": lab.cell("bp", optimizer={"name": "adam", "lr": 0.05}),
        "weight decay": lab.cell("bp", optimizer={"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}),
        "the rate's law": lab.cell("bp", annealing="linear"),
        "the schedule": lab.cell("bp", schedule="layerwise"),
        "the batch": lab.cell("bp", batch_size=100),
        "the epochs": lab.cell("bp", epochs=1),
        "the initialisation": lab.cell("bp", init={"law": "normal", "radius": 1.0}),
        "a hyper-parameter": lab.cell("ghl", hyperparameters={"temperature": 2.0}),
        "its neighbour": lab.cell("ghl", hyperparameters={"temperature": 2.5}),
        "the version": lab.cell("bp", lab.protocol("digits-mlp", {"version": 2})),
        "the network": lab.cell("bp", lab.protocol("digits-mlp", {"architecture.options.widths": [16, 13]})),
        "the probe": lab.cell("bp", lab.protocol("digits-mlp", {"probe.lr": 0.02})),
        "the input": lab.cell("bp", lab.protocol("digits-mlp", {"data.mean": [0.4]})),
        "the validation cut": lab.cell("bp", lab.protocol("digits-mlp", {"data.validation": 100})),
    }
    identities = [base.identity(data), *hashes, *(cell.identity(data) for cell in changed.values())]
    assert len(set(identities)) == len(identities)
    assert base.identity({**data, "test": "0" * 64}) != base.identity(data)
    assert lab.cell("bp").identity(data) == base.identity(data)


def test_prose_comments_and_provenance_do_not_make_another_cell(lab):
    data = load("digits", cache=lab.cache).identity
    base = lab.cell("bp")
    same = lab.cell("bp", lab.protocol("digits-mlp", {"title": "Other", "description": "Words", "published": []}))
    paper = lab.cell("bp", provenance="paper", source="somewhere")
    assert base.identity(data) == same.identity(data) == paper.identity(data)
    path = lab.rule("outside", "grad: return -grad")
    before = lab.cell(path).identity(data)
    text = Path(path).read_text().replace("Made by", "Written by").replace("return", "# why\n        return")
    Path(path).write_text(text)
    assert lab.cell(path).identity(data) == before


def test_a_stopped_cell_does_not_go_on_under_another_recipe(lab):
    with pytest.raises(RunInterrupted):
        lab.run(lab.cell("bp"), At(4, ctrl_c, "training"))
    other = lab.cell("bp", optimizer={"lr": 0.01})
    assert lab.run(other).cost.resumed == 0
    assert lab.run(lab.cell("bp")).cost.resumed == 1


def _saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def sealed(payload: bytes) -> bytes:
    """A payload behind its digest, as a checkpoint file has it."""
    return hashlib.sha256(payload).digest() + payload


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, this is no checkpoint",
        b"\0" * 500,
        _saved({"state": {}})[:300],
        sealed(_saved({"some": "other file"})),
        sealed(_saved([1, 2, 3])),
    ],
    ids=["empty", "text", "zeros", "cut short", "other keys", "a list"],
)
def test_a_corrupt_checkpoint_is_discarded_and_the_bits_are_the_same(lab, content):
    cell = lab.cell("bp")
    whole = lab.run(cell)
    path = lab.cache / "checkpoints" / f"{whole.cell}.pt"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    said = At()
    result = lab.run(cell, said)
    assert any("checkpoint is damaged" in line for line in said.said)
    assert (result.status, result.reason) == ("ok", None)
    assert result.measurement() == whole.measurement()
    assert not path.exists()


def test_a_checkpoint_with_a_flipped_byte_never_changes_a_number(lab):
    """Either the damage is noticed and the cell starts anew, or it lies where nothing is stored."""
    cell = lab.cell("bp")
    whole = lab.run(cell)
    with pytest.raises(RunInterrupted):
        lab.run(cell, At(6, ctrl_c, "training"))
    (path,) = lab.checkpoints()
    good = path.read_bytes()
    found = good.find(whole_bytes(path))
    assert found > 0
    path.write_bytes(good[:found] + bytes([good[found] ^ 0xFF]) + good[found + 1 :])
    assert lab.run(cell).measurement() == whole.measurement()


def whole_bytes(path: Path) -> bytes:
    """The stored bytes of the first layer's weights."""
    return saved_in(path)["learner"]["model"]["body.fc1.weight"].numpy().tobytes()


def test_a_checkpoint_is_due_when_its_interval_has_passed(lab, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    checkpoint = Checkpoint(lab.root, "a" * 64, interval=60)
    assert not checkpoint.due()
    clock[0] = 160.0
    assert checkpoint.due()
    checkpoint.save({"x": 1})
    assert not checkpoint.due()
    assert checkpoint.load()["x"] == 1
    checkpoint.remove()
    assert checkpoint.load() is None


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one_and_says_so(lab, monkeypatch):
    cell = lab.cell("bp")
    whole = lab.run(cell)
    with pytest.raises(RunInterrupted):
        lab.run(cell, At(4, ctrl_c, "training"))
    (path,) = lab.checkpoints()
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ResultError, match="No space left on device"):
            lab.run(cell, every=0.0)
    assert path.read_bytes() == before
    assert lab.checkpoints() == [path]
    assert resumed(lab, cell).measurement() == whole.measurement()


# Real processes

KILLER = """
# Runs a cell in children of one process that has torch loaded, and kills each at a random moment.
import json, os, random, signal, sys, time
from pathlib import Path
from hebbbench.cell import cells
from hebbbench.progress import Silent
from hebbbench.protocol import load_protocol
from hebbbench.recipe import Recipe
from hebbbench.training.run import Settings, run_cell

os.fsync = lambda descriptor: None  # a process dies here, not the machine
root, kills = Path(sys.argv[1]), int(sys.argv[2])
(cell,) = cells(load_protocol(root / "tiny.yaml"), ["ghl"], [0], {}, Recipe(provenance="default"))
settings = Settings(device="cpu", cache=root / "cache", checkpoint_seconds=0.0)
draw = random.Random(0)
folder = root / "cache" / "checkpoints"

def stamps():
    try:
        return {(p.name, p.stat().st_mtime_ns) for p in folder.glob("*.pt")}
    except FileNotFoundError:
        return set()

def whole():
    from hebbbench.training.checkpoint import Checkpoint
    for path in root.rglob("*.json"):
        json.loads(path.read_text())
    for path in folder.glob("*.pt"):
        assert Checkpoint(folder, path.stem).load() is not None

killed = 0
while killed < kills:
    before, end = stamps(), time.monotonic() + 5
    child = os.fork()
    if child == 0:
        try:
            run_cell(cell, root / "results", settings, Silent())
        finally:
            os._exit(0)
    while stamps() == before and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.06))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    whole()
    if not os.WIFSIGNALED(status):
        break
    killed += 1
result = run_cell(cell, root / "results", settings, Silent())
whole()
print(json.dumps({"killed": killed, "resumed": result.cost.resumed, "measurement": result.measurement()}))
"""


def environ(lab: Lab) -> dict[str, str]:
    """That of a subprocess: as many threads as here, because their number decides the last bits of a sum."""
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "OMP_WAIT_POLICY": "PASSIVE"}
    return {**os.environ, "HEBBBENCH_CACHE": str(lab.cache), **threads}


def test_processes_killed_at_random_moments_lose_nothing(lab):
    path = lab.protocol_file("digits-mlp", {"training.epochs": 30, "budget.epochs": 30})
    from hebbbench.cell import cells
    from hebbbench.protocol import load_protocol

    (cell,) = cells(load_protocol(Path(path)), ["ghl"], [0], {}, Recipe(provenance="default"))
    whole = lab.run(cell)
    status, out, err = forked.script(KILLER, str(lab.root), "6", cwd=lab.root, environ=environ(lab)).wait(60)
    assert status == 0, err
    told = json.loads(out)
    assert told["killed"] >= 3
    assert told["resumed"] >= 2
    assert told["measurement"] == whole.measurement()
    (stored,) = lab.results.rglob("*.json")
    assert json.loads(stored.read_text())["cell"] == whole.cell
    assert not list(lab.results.rglob("*.pt"))


def test_ctrl_c_at_the_command_line_exits_130_says_how_to_go_on_and_does(lab):
    path = lab.protocol_file("digits-mlp", {"training.epochs": 5000, "budget.epochs": 5000, "training.batch_size": 32})
    arguments = ["run", "-p", path, "-r", "bp", "--results", str(lab.results)]
    process = forked.hebbbench(*arguments, cwd=lab.root, environ=environ(lab))
    end = time.monotonic() + 30
    while "training will take about" not in process.out.read_text() and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    status, _, errors = process.wait(30)
    assert status == 130
    told = re.fullmatch(
        r"hebbbench: stopped after step (\d+) of \d+\. Run the same command again to go on from there\.\n", errors
    )
    assert told, errors
    assert not list(lab.results.rglob("*.json"))

    from hebbbench.cell import cells
    from hebbbench.protocol import load_protocol
    from hebbbench.registry import recipe

    (cell,) = cells(load_protocol(Path(path)), ["bp"], [0], {}, recipe("bp", "tiny"))
    seen = At(1, die, "training")
    with pytest.raises(Killed):
        lab.run(cell, seen)
    assert any(re.search(rf"checkpoint.* step {told[1]}\b", text) for text in seen.said)
