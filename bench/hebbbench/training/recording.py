"""Recording what is done to tensors, and proving that the recording does the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from hebbbench.training.unrepeatable import Unrepeatable

WARM_UP = 3
"""Times something is done on the recording's own stream before it is recorded, so that libraries have chosen."""

CLOSE = 1e-3
"""How far what is replayed may be from what it stands for, in parts of the largest change of each tensor."""


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
            try:
                with torch.cuda.stream(beside):
                    for _ in range(WARM_UP):
                        call()
                    with _waiting_is_an_error():
                        call()
            finally:  # what was begun there is done before anything is put back here
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says once that it does not find everything that waits
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
    """Why something is not replayed."""


REFUSALS = (Unproved, RuntimeError)
"""What `recorded` raises; torch the latter, also out of memory."""


def reason(error: Exception) -> str:
    """What a refusal says, on one line."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@dataclass(frozen=True)
class Recorded:
    """What replays a call, and what the recorded call returned, which every replay writes anew."""

    replay: Callable[[], None]
    made: Tensor | None


def recorded(
    recorder: Recorder,
    call: Callable[[], Tensor | None],
    tensors: Callable[[], dict[str, Tensor]],
    moments: Sequence[Callable[[], None]],
) -> Recorded:
    """A proved recording of `call`. Whatever comes of it, `tensors` then hold what they held before.

    What the call makes in a first run, and was not there before, starts from zeros, as an optimizer's averages do.

    Args:
        tensors: everything that the call changes, by name.
        moments: each lays what a call depends on. At these moments, one after the other, the recording must leave what
            the call leaves.

    Raises:
        Unproved: the call needs the host, makes a tensor anew, or the recording leaves something else.
        RuntimeError: torch cannot record it, or memory is short.
    """
    held = {name: tensor.clone() for name, tensor in tensors().items()}
    made: list[Tensor | None] = [None]

    def kept() -> None:
        made[0] = call()

    try:
        moments[0]()
        kept()  # what is made in a first run is made
        with Unrepeatable() as found:
            kept()
        if found.reads or found.draws:
            raise Unproved(f"it needs the host ({', '.join((found.reads | found.draws).keys())})")
        _put_back(tensors(), held)
        before = tensors()  # held, so that nothing new can lie where they do
        replay = recorder.record(kept)
        for name, tensor in tensors().items():
            if name not in before or before[name].data_ptr() != tensor.data_ptr():
                raise Unproved(f"it makes {name} anew")
        recording = Recorded(replay, made[0])
        left = []
        for run in (replay, kept):
            _put_back(tensors(), held)
            for moment in moments:
                moment()
                run()
            answer = recording.made if run is replay else made[0]
            left.append({name: tensor.clone() for name, tensor in (*tensors().items(), *named("result", answer))})
        for name, right in left[1].items():
            if not _close(left[0][name], right, held.get(name)):
                raise Unproved(f"a recorded step leaves another {name}")
    finally:
        _put_back(tensors(), held)
    return recording


@torch.no_grad()
def _put_back(tensors: dict[str, Tensor], held: dict[str, Tensor]) -> None:
    """What was not there yet is what optimizers start from: nothing but zeros."""
    for name, tensor in tensors.items():
        if name in held:
            tensor.copy_(held[name])
        else:
            tensor.zero_()


def named(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors in a structure of mappings and lists, by the way to them."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping | list):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in pairs:
            yield from named(f"{name} {key}".strip(), inner)


def _close(mine: Tensor, other: Tensor, before: Tensor | None) -> bool:
    """Whether two tensors are the same up to the rounding of their numbers and of what has changed in them."""
    if not mine.is_floating_point():
        return torch.equal(mine, other)
    change = other if before is None else other - before
    rounding = 16 * torch.finfo(other.dtype).eps * other.abs().max()
    return bool((mine - other).abs().max() <= CLOSE * change.abs().max() + rounding)
