"""A whole step recorded once and replayed: a GPU waits longer for a small step's launches than for its arithmetic.

A recording is a CUDA graph. It does to the same memory what the step did when it was recorded, so nothing in it may
depend on what Python knows: the batch and the factor of all rates come in buffers, the step's noise is added and its
dropout seeded before each replay. A recording is used only after two steps of it, on two batches and at two rates,
have been compared with the same steps taken one operation at a time (`Replay._prove`); otherwise, and for a smaller
last batch, steps go on as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import torch
from torch import Tensor

from hebbbench.training import optimise
from hebbbench.training.learner import Learner
from hebbbench.training.unrepeatable import Unrepeatable

MOST = 50_000_000
"""Parameters beyond which nothing is recorded: kernels then outlast their launches, and activity is held twice."""

WARM_UP = 3
"""Steps taken on the recording's own stream before it is made, so that every library has made its choices."""

CLOSE = 1e-3
"""How far a replayed step may be from the one it stands for, in parts of the largest change of each tensor."""


class Recorder(Protocol):
    """What turns a call into something that repeats it."""

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        """What does to the same tensors what `call` does. `call` may run several times; tensors are put back later."""


class CudaRecorder:
    """Records CUDA graphs, each with memory of its own, on a stream beside the current one.

    A recording that is begun and fails leaves torch (up to 2.11) on the other stream, with generators that believe
    they are recorded. So what waits for the device is found before one is begun, and after a failure none is again.
    """

    failed = False

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        if CudaRecorder.failed:
            raise Unproved("an earlier recording failed")
        with torch.cuda.device(self.device):
            here, beside = torch.cuda.current_stream(), torch.cuda.Stream()
            beside.wait_stream(here)
            with torch.cuda.stream(beside):
                for _ in range(WARM_UP):
                    call()
                with _waiting_is_an_error():
                    call()
            here.wait_stream(beside)
            graph = torch.cuda.CUDAGraph()
            try:
                # Only this thread's calls are looked at: another one pins the memory of decoded batches meanwhile.
                with torch.cuda.graph(graph, stream=beside, capture_error_mode="thread_local"):
                    call()
            except BaseException:
                CudaRecorder.failed = True
                torch.cuda.set_stream(here)
                _end_recording(beside)
                raise
        return graph.replay


@contextmanager
def _waiting_is_an_error() -> Iterator[None]:
    """Within this context whatever makes the host wait for the device raises RuntimeError."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _end_recording(beside: torch.cuda.Stream) -> None:
    """Record nothing to its end, which tells the generators of a failed recording that it is over."""
    with suppress(RuntimeError), torch.cuda.graph(torch.cuda.CUDAGraph(), stream=beside):
        pass


class Unproved(Exception):
    """Why a learner's steps are not replayed."""


class Replay:
    """Takes a learner's steps, replayed where that is proved to be the same.

    Args:
        learner: of which `can_replay` holds. Its optimizers keep their counters on the device from now on.
        say: told once if steps cannot be replayed, and why.

    Attributes:
        replayed: whether the last step was.
    """

    def __init__(self, learner: Learner, recorder: Recorder, say: Callable[[str], None]) -> None:
        self.learner, self.recorder, self.say = learner, recorder, say
        self.replayed = self.refused = False
        self.key: tuple[int, int | None] | None = None
        self.run: Callable[[], None] | None = None
        self.loss: Tensor | None = None
        self.factor = torch.ones((), device=learner.device)
        if learner.device.type == "cuda":
            for optimizer in learner.optimizers:
                _count_on_device(optimizer)

    def step(self, x: Tensor, labels: Tensor, number: int, done: float, only: int | None = None) -> Tensor | None:
        """As `Learner.step`. The loss is overwritten by the next step."""
        rows, self.replayed = len(x), False
        if not self.refused and (self.key is None or only != self.key[1] or rows > self.key[0]):
            self._record(x, labels, number, done, only)
        if self.refused:
            return self.learner.step(x, labels, number, done, only)
        self._begin(number, done)
        if (rows, only) != self.key or self.run is None:
            return self._whole(x, labels, only)
        self.x.copy_(x)
        self.labels.copy_(labels)
        self.run()
        self.replayed = True
        return self.loss

    def _begin(self, number: int, done: float) -> None:
        """What a step does before its pass, and the factor of its rates."""
        self.learner.prepare(number)
        optimise.anneal(self.learner.optimizers, "constant", done)
        self.factor.fill_(optimise.annealing(self.learner.annealing, done))

    def _whole(self, x: Tensor, labels: Tensor, only: int | None) -> Tensor | None:
        """The rest of a step, with nothing of Python's in it that changes from step to step."""
        loss = self.learner.find_update(x, labels, only)
        self.learner.move(only, None if self.learner.annealing == "constant" else self.factor)
        return loss

    def _record(self, x: Tensor, labels: Tensor, number: int, done: float, only: int | None) -> None:
        """Record the step of this batch's size and prove the recording, or refuse. The learner is left as it was."""
        self.run, self.key = None, (len(x), only)
        self.x, self.labels = torch.empty_like(x).copy_(x), labels.clone()
        held = {name: tensor.clone() for name, tensor in self._tensors().items()}
        why = ""
        try:
            self._begin(number, done)
            self._recorded(only)  # what is made in a first step is made
            with Unrepeatable() as found:
                self._recorded(only)
            if found.reads or found.draws:
                raise Unproved(f"it needs the host ({', '.join((found.reads | found.draws).keys())})")
            self._put_back(held)
            before = self._tensors()  # held, so that nothing new can lie where they do
            self.run = self.recorder.record(lambda: self._recorded(only))
            for name, tensor in self._tensors().items():
                if name not in before or before[name].data_ptr() != tensor.data_ptr():
                    raise Unproved(f"it makes {name} anew")
            self._prove(self.run, held, number, done, only)
        except (Unproved, RuntimeError) as error:  # torch raises the latter, also out of memory
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
        self._put_back(held)
        if why:
            self.refused, self.run, self.loss = True, None, None
            self.say(f"  steps are not replayed but taken one operation at a time: {why}")

    def _recorded(self, only: int | None) -> None:
        self.loss = self._whole(self.x, self.labels, only)

    def _prove(
        self, run: Callable[[], None], held: dict[str, Tensor], number: int, done: float, only: int | None
    ) -> None:
        """Compare what two steps leave, replayed and one operation at a time, from where the learner was."""
        x, labels = self.x.clone(), self.labels.clone()
        moments = ((number, done, x, labels), (number + 1, 0.5 * done + 0.25, x.roll(1, -1), labels.roll(1, 0)))
        recorded = self.loss
        left: list[dict[str, Tensor]] = []
        for again in (True, False):
            self._put_back(held)
            loss = recorded
            for moment, part, images, targets in moments:
                self._begin(moment, part)
                self.x.copy_(images)
                self.labels.copy_(targets)
                if again:
                    run()
                else:
                    loss = self._whole(self.x, self.labels, only)
            left.append({name: tensor.clone() for name, tensor in (*self._tensors().items(), *_named("loss", loss))})
        for name, right in left[1].items():
            if not _close(left[0][name], right, held.get(name)):
                raise Unproved(f"a recorded step leaves another {name}")

    def _tensors(self) -> dict[str, Tensor]:
        """Everything that a step changes, by name."""
        return dict(_named("", self.learner.state_dict()))

    @torch.no_grad()
    def _put_back(self, held: dict[str, Tensor]) -> None:
        """What was not there yet is what optimizers start from: nothing but zeros."""
        for name, tensor in self._tensors().items():
            if name in held:
                tensor.copy_(held[name])
            else:
                tensor.zero_()


def can_replay(learner: Learner) -> bool:
    """Whether it is worth asking if this learner's steps can be replayed: on a GPU, alone, and unobserved."""
    return (
        learner.device.type == "cuda"
        and learner.world.size == 1
        and learner.watch is None
        and learner.observer is None
        and not learner.recomputes
        and sum(parameter.numel() for parameter in learner.model.parameters()) <= MOST
    )


def _named(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors in a structure of mappings and lists, by the way to them."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping | list):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in pairs:
            yield from _named(f"{name} {key}".strip(), inner)


def _close(mine: Tensor, other: Tensor, before: Tensor | None) -> bool:
    """Whether two tensors are the same up to the rounding of their numbers and of what has changed in them."""
    if not mine.is_floating_point():
        return torch.equal(mine, other)
    change = other if before is None else other - before
    rounding = 16 * torch.finfo(other.dtype).eps * other.abs().max()
    return bool((mine - other).abs().max() <= CLOSE * change.abs().max() + rounding)


def _count_on_device(optimizer: torch.optim.Optimizer) -> None:
    """Have an optimizer that counts its steps do so where a recording can (Adam; plain descent counts nothing)."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
            for parameter in group["params"]:
                state = optimizer.state.get(parameter, {})
                if "step" in state:
                    state["step"] = state["step"].to(parameter.device)
    optimizer._warned_capturable_if_run_uncaptured = True  # a smaller last batch does, on purpose
