"""Steps replayed whole leave what steps taken one operation at a time leave; what cannot be replayed is not.

No GPU is needed: a CUDA graph is stood in for by a tape of operations, which freezes what a graph freezes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from conftest import At, Killed, Lab
from hebbbench import Rule, registry
from hebbbench.plasticity.terms import hebb
from hebbbench.progress import Silent
from hebbbench.training.learner import Learner
from hebbbench.training.recording import WARM_UP, CudaRecorder, Unproved
from hebbbench.training.replay import Replay, can_replay
from hebbbench.training.run import Settings, run_cell
from pretended import Tape, pretended_cuda
from test_devices import cell_of
from test_waiting import WAITING

STEPS = 10
CPU = torch.device("cpu")


def learner_of(rule: str = "bp", protocol: str = "digits-mlp", device: torch.device = CPU, **recipe: Any) -> Learner:
    return Learner(cell_of(rule, protocol, recipe=recipe or None), (8, 8, 1), 10, device)


def batches(learner: Learner, sizes: list[int]) -> list[tuple[Tensor, Tensor]]:
    source = torch.Generator().manual_seed(0)
    made = []
    for size in sizes:
        x = torch.randn(size, 1, 8, 8, generator=source)
        x = x if learner.model.layout == "image" else x.flatten(1)
        made.append((x.to(learner.device), torch.randint(10, (size,), generator=source).to(learner.device)))
    return made


def train(
    learner: Learner,
    step: Callable[..., Tensor | None],
    only: int | None = None,
    begin: int = 0,
    end: int = STEPS,
    sizes: tuple[int, ...] = (16, 16, 16, 5),
) -> list[float]:
    """Some steps, every fourth on a smaller batch; the losses."""
    fed = batches(learner, [sizes[i % len(sizes)] for i in range(STEPS)])
    losses = []
    for number in range(begin, end):
        loss = step(*fed[number], number, number / STEPS, only)
        losses.append(0.0 if loss is None else loss.item())
    return losses


def assert_same(mine: Learner, other: Learner) -> None:
    theirs = other.model.state_dict()
    for name, value in mine.model.state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-6)
    for one, two in zip(mine.plasticity.layers, other.plasticity.layers, strict=True):
        for name, value in one.state.items():
            torch.testing.assert_close(value, two.state[name], rtol=1e-5, atol=1e-6)


RECIPES = {
    "annealed, with momentum": {
        "optimizer": {"lr": 0.02, "momentum": 0.9, "weight_decay": 1e-3, "l1": 1e-4, "clip": 1.0},
        "annealing": "cosine",
    },
    "Adam": {"optimizer": {"name": "adam", "lr": 1e-3}, "annealing": "linear"},
}


def replayed_beside_eager(
    rule: str, protocol: str, only: int | None = None, steps: int = STEPS, **recipe: Any
) -> tuple[list[bool], list[str]]:
    """Train twice, on the CPU and replayed on the pretended device, and compare; which steps were, and what was said.

    There Adam counts its steps on the device, as it must.
    """
    eager = learner_of(rule, protocol, **recipe)
    expected = train(eager, eager.step, only, end=steps)
    said: list[str] = []
    replayed = []
    with pretended_cuda() as device:
        learner = learner_of(rule, protocol, device, **recipe)
        assert can_replay(learner)
        replay = Replay(learner, Tape(), said.append)

        def step(*given: Any) -> Tensor | None:
            loss = replay.step(*given)
            replayed.append(replay.replayed)
            return loss

        losses = train(learner, step, only, end=steps)
    assert losses == pytest.approx(expected, rel=1e-4)
    assert_same(learner, eager)
    return replayed, said


@pytest.mark.parametrize("rule", ["bp", "ghl", "softhebb", "hpca", "swta_fh"])
@pytest.mark.parametrize("protocol", ["digits-mlp", "digits-deephebb"])
@pytest.mark.parametrize("name", RECIPES)
def test_replayed_steps_leave_the_same(rule, protocol, name):
    replayed, said = replayed_beside_eager(rule, protocol, **RECIPES[name])
    assert not said
    assert replayed == [number % 4 != 3 for number in range(STEPS)]


@pytest.mark.parametrize("rule", registry.rule_names())
def test_every_rule_is_replayed_or_refused_and_learns_the_same(rule):
    replayed, said = replayed_beside_eager(rule, "digits-mlp", steps=4)
    assert len(said) == (rule in WAITING)
    assert replayed == [rule not in WAITING] * 3 + [False]


def test_a_single_layer_learns_the_same():
    replayed, said = replayed_beside_eager("softhebb", "digits-deephebb", 1, schedule="layerwise", **RECIPES["Adam"])
    assert sum(replayed) == 8
    assert not said


def test_another_layer_is_another_recording():
    tape, learner = Tape(), learner_of("softhebb", "digits-deephebb")
    replay = Replay(learner, tape, pytest.fail)
    x, labels = batches(learner, [8])[0]
    for only in (0, 0, 1, 1, 1):
        replay.step(x, labels, 0, 0.0, only)
        assert replay.replayed
    assert tape.made == 2


def test_noise_and_dropout_are_those_of_the_step():
    def noisy(device: torch.device) -> Learner:
        plain = {"epochs": 1, "batch_size": 8, "optimizer": {"lr": 0.01}, "noise": 0.01, "annealing": "cosine"}
        network = {"name": "mlp", "options": {"widths": [16, 12], "dropout": 0.5}}
        cell = cell_of("bp", "digits-mlp", {"training": plain, "architecture": network})
        return Learner(cell, (8, 8, 1), 10, device)

    eager, learner = noisy(CPU), noisy(CPU)
    assert learner.draws
    expected = train(eager, eager.step)
    assert train(learner, Replay(learner, Tape(), pytest.fail).step) == pytest.approx(expected, rel=1e-4)
    assert_same(learner, eager)


class Raises(Tape):
    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        call()
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


class Nothing(Tape):
    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        super().record(call)
        return lambda: None


class Frozen(Tape):
    """Whose recording holds one value of everything that it read: the batch and the rate of the first step."""

    def __init__(self, replay: Callable[[], Replay], what: str) -> None:
        super().__init__()
        self.replay, self.what = replay, what

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        inner = super().record(call)
        replay = self.replay()
        buffer = replay.rates.factor if self.what == "factor" else getattr(replay, self.what)
        kept = buffer.clone()

        def run() -> None:
            buffer.copy_(kept)
            inner()

        return run


WRONG = {
    "raises": (lambda _: Raises(), "operation not permitted when stream is capturing"),
    "does nothing": (lambda _: Nothing(), "a recorded step leaves another"),
    "holds the batch": (lambda replay: Frozen(replay, "x"), "a recorded step leaves another"),
    "holds the labels": (lambda replay: Frozen(replay, "labels"), "a recorded step leaves another"),
    "holds the rate": (lambda replay: Frozen(replay, "factor"), "a recorded step leaves another"),
}


@pytest.mark.parametrize(("rule", "name"), [("bp", name) for name in WRONG] + [("softhebb", "holds the batch")])
def test_a_recording_that_is_wrong_is_refused_once_and_leaves_no_trace(name, rule):
    make, why = WRONG[name]
    recipe = RECIPES["annealed, with momentum"]
    eager, learner = learner_of(rule, **recipe), learner_of(rule, **recipe)
    said: list[str] = []
    held: list[Replay] = []
    held.append(Replay(learner, make(lambda: held[0]), said.append))
    expected = train(eager, eager.step)
    assert train(learner, held[0].step) == expected
    assert learner.digest() == eager.digest()
    assert len(said) == 1
    assert why in said[0]


class Counting(Rule):
    """Whose rate depends on a number of Python's."""

    def delta(self, pre: Any, post: Tensor, weight: Tensor) -> Tensor:
        self.__dict__["calls"] = self.__dict__.get("calls", 0) + 1
        return hebb(post, pre) / self.__dict__["calls"]


class Turned(Rule):
    """Whose update lies in memory column by column."""

    def delta(self, pre: Any, post: Tensor) -> Tensor:
        return hebb(post, pre).T.contiguous().T


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_update_may_lie_in_memory_as_it_likes(momentum, monkeypatch):
    monkeypatch.setattr(registry, "rule", lambda name: Turned)
    _, said = replayed_beside_eager("hebb", "digits-mlp", optimizer={"lr": 0.01, "momentum": momentum})
    assert not said


class Replacing(Rule):
    """Whose state is another tensor after each step."""

    def init(self, weight: Tensor) -> dict[str, Tensor]:
        return {"trace": torch.zeros(weight.shape[0])}

    def delta(self, pre: Any, post: Tensor, weight: Tensor, state: dict[str, Tensor]) -> Tensor:
        state["trace"] = 0.9 * state["trace"] + post.mean(0)
        return hebb(post - state["trace"], pre)


@pytest.mark.parametrize(
    ("kind", "why"), [(Counting, "a recorded step leaves another"), (Replacing, "rule body.fc1 trace anew")]
)
def test_a_rule_that_a_recording_cannot_hold_is_refused(kind, why, monkeypatch):
    monkeypatch.setattr(registry, "rule", lambda name: kind)
    learner = learner_of("hebb", optimizer={"lr": 0.01})
    said: list[str] = []
    replay = Replay(learner, Tape(), said.append)
    train(learner, replay.step)
    assert replay.refused
    assert why in said[0]


def test_a_graph_is_warmed_up_and_recorded_beside_the_current_stream(monkeypatch):
    cuda = mock.MagicMock()
    monkeypatch.setattr(torch, "cuda", cuda)
    where = []
    cuda.stream.return_value.__enter__.side_effect = lambda: where.append("warm-up")
    cuda.graph.return_value.__enter__.side_effect = lambda: where.append("graph")
    replay = CudaRecorder(torch.device("cuda", 1)).record(lambda: where.append("call"))
    assert where == ["warm-up", *["call"] * (WARM_UP + 1), "graph", "call"]
    assert replay is cuda.CUDAGraph.return_value.replay
    here, beside = cuda.current_stream.return_value, cuda.Stream.return_value
    beside.wait_stream.assert_called_once_with(here)
    here.wait_stream.assert_called_once_with(beside)
    assert cuda.graph.call_args.kwargs["stream"] is beside
    cuda.device.assert_called_once_with(torch.device("cuda", 1))


def test_what_waits_for_the_device_is_found_before_a_graph_is_begun(monkeypatch):
    cuda = mock.MagicMock()
    cuda.get_sync_debug_mode.return_value = 0
    monkeypatch.setattr(torch, "cuda", cuda)

    def call() -> None:
        if mock.call("error") == cuda.set_sync_debug_mode.call_args:
            raise RuntimeError("called a synchronizing CUDA operation")

    with pytest.raises(RuntimeError, match="synchronizing"):
        CudaRecorder(torch.device("cuda", 0)).record(call)
    assert cuda.set_sync_debug_mode.call_args == mock.call(0)
    cuda.graph.assert_not_called()
    assert not CudaRecorder.failed


def test_after_a_failed_recording_the_stream_is_the_old_one_and_none_is_begun_again(monkeypatch):
    monkeypatch.setattr(CudaRecorder, "failed", False)
    cuda = mock.MagicMock()
    monkeypatch.setattr(torch, "cuda", cuda)
    cuda.graph.return_value.__exit__.return_value = False
    calls = []

    def call() -> None:
        calls.append(cuda.graph.called)
        if cuda.graph.called:
            raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="not permitted"):
        CudaRecorder(torch.device("cuda", 0)).record(call)
    cuda.set_stream.assert_called_once_with(cuda.current_stream.return_value)
    assert cuda.graph.call_count == 2, "a second, empty recording ends the first for the generators"
    calls.clear()
    with pytest.raises(Unproved, match="an earlier recording failed"):
        CudaRecorder(torch.device("cuda", 0)).record(call)
    assert not calls


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_gpu_has_begun_goes_on_on_a_cpu_in_its_own_way(name):
    recipe = RECIPES[name]
    with pretended_cuda() as device:
        there = learner_of("bp", device=device, **recipe)
        train(there, Replay(there, Tape(), pytest.fail).step, end=4)
        saved = there.state_dict()
        own = [group for part in saved["optimizers"] for group in part["param_groups"]]
        assert any(group.get("capturable") or group.get("fused") for group in own)
    here = learner_of("bp", **recipe)
    here.load_state_dict(saved)
    own = [group for optimizer in here.optimizers for group in optimizer.param_groups]
    assert not any(group.get("capturable") or group.get("fused") for group in own)
    train(here, here.step, begin=4)


def test_only_a_learner_on_a_gpu_that_nobody_watches_is_replayed():
    assert not can_replay(learner_of())
    with pretended_cuda() as device:
        learner = learner_of(device=device)
        assert can_replay(learner)
        learner.observer = object()  # type: ignore[assignment]
        assert not can_replay(learner)


@pytest.mark.parametrize(("rule", "optimizer"), [("bp", "adam"), ("softhebb", "sgd")])
def test_a_cell_stopped_and_resumed_is_the_cell_run_through(lab: Lab, rule, optimizer):
    chosen = {"name": optimizer, "lr": 0.003, **({"momentum": 0.9} if optimizer == "sgd" else {})}
    free = {"free": ["optimizer", "annealing"]}
    cell = lab.cell(rule, lab.protocol("digits-mlp", free), optimizer=chosen, annealing="cosine")
    here = lab.run(cell)
    assert "replayed" not in here.environment.model_dump()

    def there(reporter: Any, every: float = 60.0) -> Any:
        with pretended_cuda(replays=True):
            return run_cell(cell, None, Settings(device="cuda", cache=lab.cache, checkpoint_seconds=every), reporter)

    through = there(Silent())
    assert through.status == "ok", through.reason
    assert through.environment.model_dump()["replayed"] == 8 == through.cost.steps - 2
    for name, metric in here.metrics.items():
        assert through.metrics[name].value == pytest.approx(metric.value, abs=0.02), name

    def kill() -> None:
        raise Killed

    with pytest.raises(Killed):
        there(At(7, kill, "training"), every=0.0)
    resumed = there(Silent())
    assert resumed.cost.resumed == 1
    assert (resumed.weights, resumed.measurement()) == (through.weights, through.measurement())
