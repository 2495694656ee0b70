"""Work side by side: one piece a thread, each on its share of the cores.

The products of a small network are too small to be divided over cores: two cores do one chunk of ten hardly faster than
one core does. Torch lets go of Python's lock within every operation, so threads of one process are enough.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from hebbbench.progress import Reporter
from hebbbench.training.interrupt import StopRequest

T = TypeVar("T")


def side_by_side(
    pieces: Iterator[Callable[[StopRequest], T]], lanes: int, stop: StopRequest, device: torch.device
) -> Iterator[T]:
    """What the pieces give, in their order, `lanes` of them at work at a time.

    Args:
        pieces: each is taken, on the calling thread, when a lane is free for it, and called on a thread of its own with
            what says whether it is to stop. It computes with its lane's share of torch's threads, which does not depend
            on how many others are at work.
        stop: whether all are to stop.
        device: that the pieces compute on.

    Raises:
        whatever a piece or `pieces` raises first, when all at work have ended and what came to its end has been given.
            What a piece raises stops the others; what `pieces` raises lets those at work go on.
    """
    threads = torch.get_num_threads()
    share = max(1, threads // lanes)
    running: dict[Future[T], tuple[int, StopRequest]] = {}
    ended: dict[int, T] = {}
    taken = given = 0
    failure: BaseException | None = None
    torch.set_num_threads(share)
    pool = ThreadPoolExecutor(lanes, initializer=_begin, initargs=(share, device))
    try:
        while True:
            while failure is None and len(running) < lanes:
                request = stop.beside()
                try:
                    piece = next(pieces, None)
                except Exception as error:
                    failure = error
                    break
                if piece is None:
                    break
                running[pool.submit(piece, request)] = taken, request
                taken += 1
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number, _ = running.pop(future)
                try:
                    ended[number] = future.result()
                except Exception as error:
                    failure = failure or error
                    _stop(running)
            while given in ended:
                yield ended.pop(given)
                given += 1
        yield from (ended[number] for number in sorted(ended))
        if failure is not None:
            raise failure
    finally:
        _stop(running)
        pool.shutdown()
        torch.set_num_threads(threads)


def _begin(threads: int, device: torch.device) -> None:
    """What a thread does first: take its share of the cores, and a GPU's context, which a new thread has not."""
    torch.set_num_threads(threads)
    if device.type == "cuda" and torch.cuda.is_available():
        torch.cuda.set_device(device.index or 0)


def _stop(running: dict[Future[T], tuple[int, StopRequest]]) -> None:
    for _, request in running.values():
        request.signalled = True


class Locked:
    """A reporter that several threads may tell of their steps."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter, self._lock = reporter, threading.Lock()

    def phase(self, name: str, total: int, done: int = 0) -> None:
        with self._lock:
            self._reporter.phase(name, total, done)

    def advance(self, steps: int = 1, note: str = "") -> None:
        with self._lock:
            self._reporter.advance(steps, note)

    def say(self, text: str) -> None:
        with self._lock:
            self._reporter.say(text)

    def end(self) -> None:
        with self._lock:
            self._reporter.end()

    def close(self) -> None:
        with self._lock:
            self._reporter.close()
