"""The processes that torchrun starts: `torchrun --nproc-per-node 2 -m hebbbench run …`.

Numbers on a GPU travel by NCCL. Everything else goes by gloo, so that a question such as whether to stop never waits
for the device.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from hebbbench.errors import HebbBenchError, RunInterrupted
from hebbbench.world import Divided, World

T = TypeVar("T")

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

PATIENCE = timedelta(days=1)
"""How long a process waits for one that is alive, and may be decoding a dataset. One that dies is noticed at once."""

LAST_WORDS = timedelta(seconds=60)
"""How long a process that failed stays, so that torchrun does not end the first one before it has kept the result."""


class Processes(Divided):
    """One of the processes that torchrun started.

    Args:
        store: where all of them can leave words; rank, size: as in `World`.
        local: which of its host's processes it is.
    """

    def __init__(self, store: Any, rank: int, size: int, local: int) -> None:
        super().__init__(rank, size)
        self._store = dist.PrefixStore("hebbbench", store)  # type: ignore[attr-defined]
        self._local = local
        self._broken = False

    def highest(self, value: int) -> int:
        found = torch.tensor(value)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def told(self, find: Callable[[], T]) -> T:
        answer: list[Any] = [_attempt(find) if self.rank == 0 else None]
        dist.broadcast_object_list(answer, src=0, device=torch.device("cpu"))
        value, error = answer[0]
        if error is not None:
            raise error
        found: T = value
        return found

    def prepared(self, find: Callable[[], T]) -> T:
        found: list[T] = []
        for turn in (self._local == 0, self._local != 0):
            error = None
            if turn:
                value, error = _attempt(find)
                found.append(value)
            errors: list[Any] = [None] * self.size
            dist.all_gather_object(errors, error)
            for known in filter(None, errors):
                raise known
        return found[0]

    def failed(self, reason: str) -> str:
        if self._broken:
            return reason
        self._broken = True
        first = self._store.compare_set("failed", "", f"process {self.rank}: {reason}").decode()
        dist.destroy_process_group()  # whoever waits for this process now learns that it is in vain
        if self.rank:
            with contextlib.suppress(RuntimeError):
                self._store.wait(["kept"], LAST_WORDS)
        return first

    def close(self) -> None:
        if self._broken:
            if self.rank == 0:
                self._store.set("kept", "")
            return
        with contextlib.suppress(RuntimeError):  # by the store, because not every backend has a barrier with a limit
            if self._store.add("closing", 1) == self.size:
                self._store.set("closed", "")
            self._store.wait(["closed"], LAST_WORDS)
        dist.destroy_process_group()

    def _total(self, value: Tensor) -> Tensor:
        whole = value.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(whole)
        return whole

    def _rows(self, value: Tensor, counts: list[int]) -> Tensor:
        most = max(counts)
        padded = value.new_zeros((most, *value.shape[1:]))
        padded[: len(value)] = value.detach()
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


@contextmanager
def joined(device: str | None) -> Iterator[tuple[World, str | None]]:
    """Within this context all processes that torchrun started are one world; yields it, and this one's device.

    Only the first one's standard output is to be seen.

    Args:
        device: cpu or cuda, as on the command line; CUDA if there is one.

    Raises:
        HebbBenchError: the environment is not torchrun's, or there are fewer GPUs than processes.
    """
    lacking = [name for name in VARIABLES if name not in os.environ]
    if lacking:
        raise HebbBenchError(
            f"WORLD_SIZE = {os.environ['WORLD_SIZE']} asks for several processes, but {', '.join(lacking)} is not set. "
            "Start them with torchrun --nproc-per-node N -m hebbbench run …, or unset WORLD_SIZE."
        )
    local = int(os.environ["LOCAL_RANK"])
    own = own_device(device, local, int(os.environ["LOCAL_WORLD_SIZE"]))
    if own != "cpu":
        torch.cuda.set_device(own)
    store, rank, size = next(rendezvous("env://"))
    backend = "gloo" if own == "cpu" else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    world = Processes(store, rank, size, local)
    try:
        with open(os.devnull, "w") as nowhere, redirect_stdout(sys.stdout if rank == 0 else nowhere):
            yield world, own
    except RunInterrupted as error:  # agreed upon, so all come here, and the first one says it
        world.close()
        if rank:
            sys.exit(error.exit_code)
        raise
    except Exception as error:
        first = world.failed(str(error))
        world.close()
        if isinstance(error, HebbBenchError):
            raise
        raise HebbBenchError(first) from error
    world.close()


def own_device(name: str | None, local: int, processes: int) -> str:
    """The device of this host's process number `local` of several.

    Raises:
        HebbBenchError: a single GPU is named, or there are fewer than processes.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return name
    if name != "cuda":
        raise HebbBenchError(f"--device {name}: {processes} processes cannot share one device. Give cuda or cpu.")
    if torch.cuda.device_count() < processes:
        raise HebbBenchError(
            f"{processes} processes on this host, but {torch.cuda.device_count()} GPUs. Give torchrun as many "
            "--nproc-per-node as there are GPUs, or --device cpu."
        )
    return f"cuda:{local}"


def _attempt(find: Callable[[], T]) -> tuple[Any, Exception | None]:
    try:
        return find(), None
    except Exception as error:
        return None, error
