"""Stopping between two pieces of work, never inside one: because somebody asked, or because time is nearly up."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from hebbbench.errors import HebbBenchError, LimitTooShort, RunInterrupted, TimeLimitReached
from hebbbench.progress import duration
from hebbbench.world import ALONE, World

LEAVE_SECONDS = 1.0
"""What is left for a process to close its files and end, at least."""


def process_began(otherwise: float) -> float:
    """When this process began, by `time.monotonic()`, or `otherwise` where the system does not say.

    Starting Python and importing torch takes seconds, and on a busy machine many.
    """
    with suppress(OSError, ValueError, IndexError, AttributeError):
        # What follows the command's name, which may hold anything, begins with field 3; 22 is the start, since boot.
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return time.monotonic() - age
    return otherwise


class TimeLimit:
    """The time that all cells of a command have together.

    Args:
        seconds: how long.
        began: when it began to run, by `time.monotonic()`; now if None. A process that has taken long to come here will
            take long to leave, a quarter of that by measurement: half of it is kept.

    Attributes:
        setup: the longest that a cell has taken so far up to its first safe stop.
        cells: how many have been begun.
        once: seconds that went into what need not be done again, such as decoding data.
    """

    def __init__(self, seconds: float, began: float | None = None) -> None:
        self.seconds = seconds
        self.setup = self.once = 0.0
        self.cells = 0
        now = time.monotonic()
        began = now if began is None else began
        self._end = began + seconds
        self._leaving = max(LEAVE_SECONDS, (now - began) / 2)
        self._begun: float | None = None

    def left(self) -> float:
        """Seconds left."""
        return self._end - time.monotonic()

    def passed(self) -> float:
        """Seconds that have passed, without what need not pass again."""
        return self.seconds - self.left() - self.once

    def spare(self, seconds: float) -> bool:
        """Whether there is time for another piece of work that takes this long, and for leaving."""
        return self.left() > seconds + self._leaving

    def begin(self) -> None:
        """A cell begins: whatever comes before its first safe stop is setting up."""
        self._begun = time.monotonic()
        self.cells += 1

    def ready(self, created: float) -> None:
        """A cell has come to its first safe stop.

        Args:
            created: since when it is measured if it has not been told that it begins.
        """
        self.setup = max(self.setup, time.monotonic() - (created if self._begun is None else self._begun))
        self._begun = None

    def hopeless(self) -> bool:
        """Whether no cell could be begun under this limit by a process that takes as long to start as this one has."""
        return not self.cells and self.passed() + self._leaving >= self.seconds

    def too_short(self, why: str, needed: float | None = None) -> LimitTooShort:
        """The error for a limit under which the same command would stop at the same place for ever.

        Args:
            why: nothing comes of it; needed: seconds without which nothing would, twice the limit if that is unknown.
        """
        needed = 2 * self.seconds if needed is None else max(needed + self._leaving, self.seconds + 1)
        return LimitTooShort(
            f"the time limit of {duration(self.seconds)} is too short: {why}. It needs at least about "
            f"{duration(math.ceil(needed))}."
        )


class StopRequest:
    """Whether a run is to stop: Ctrl-C or SIGTERM came, or its time limit is near.

    How near is measured, not guessed: the longest time between two looks, saving a checkpoint included, is taken
    twice. For that a run under a limit saves its first checkpoint early (see `Checkpoint`). Several processes stop
    together: all look equally often, and one reason on any of them is enough.
    """

    def __init__(self, limit: TimeLimit | None = None, world: World = ALONE) -> None:
        self.signalled = False
        self.world = world
        self._limit = limit
        self._last = time.monotonic()
        self._looks = 0
        self._longest = 0.0
        self._late = False

    def asked(self) -> bool:
        """Look whether to stop. Called wherever a checkpoint could be written."""
        if self._limit is not None:
            now = time.monotonic()
            if self._looks == 0:
                self._limit.ready(self._last)
            else:
                self._longest = max(self._longest, now - self._last)
            self._last, self._looks = now, self._looks + 1
            self._late = self._late or not self._limit.spare(2 * self._longest)
        told = self.world.highest(2 * self.signalled + self._late)
        self.signalled, self._late = self.signalled or told >= 2, self._late or told == 1
        return told > 0

    def beside(self) -> StopRequest:
        """One more to look at, for work on another thread: what signals ask for is asked of it, its time is its own."""
        return _Beside(self, self._limit)

    def stopped(self, where: str, stuck: str = "") -> HebbBenchError:
        """The error that ends the run.

        Args:
            where: how far it has come; stuck: why it has come no further than the one before it, if it has not.
        """
        again = "Run the same command again to go on from there."
        here = f"stopped {where}, where it began: {stuck}" if stuck else f"stopped {where}"
        said = f"{here}, so give it longer" if stuck else here
        if self.signalled or self._limit is None:
            return RunInterrupted(f"{said}. {again}")
        if stuck and self._limit.cells <= 1 and not self._limit.once:
            return self._limit.too_short(here)
        return TimeLimitReached(f"{said}: the time limit of {duration(self._limit.seconds)} is near. {again}")


class _Beside(StopRequest):
    def __init__(self, whole: StopRequest, limit: TimeLimit | None) -> None:
        super().__init__(limit)
        self._whole = whole

    def asked(self) -> bool:
        self.signalled = self.signalled or self._whole.signalled
        return super().asked()


def _signals() -> list[int]:
    """What asks a run to stop: a closed terminal, too, unless `nohup` or the like has it ignored."""
    hangup = getattr(signal, "SIGHUP", None)
    closed = [] if hangup is None or signal.getsignal(hangup) is not signal.SIG_DFL else [hangup]
    return [signal.SIGINT, signal.SIGTERM, *closed]


@contextmanager
def _answered(numbers: Iterable[int], answer: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within this context these signals are answered so, and behind it as before. Only the main thread may ask."""
    previous = {number: signal.signal(number, answer) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def stop_requests(limit: TimeLimit | None = None, world: World = ALONE) -> Iterator[StopRequest]:
    """Within this context the first Ctrl-C, SIGTERM or SIGHUP sets a flag; a second one interrupts at once.

    Not so one of several processes: Ctrl-C reaches it from the terminal and once more from torchrun.
    """
    request = StopRequest(limit, world)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if request.signalled and world.size == 1:
            raise KeyboardInterrupt
        request.signalled = True

    with _answered(_signals(), on_signal):
        yield request


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within this context stop signals wait, and processes begun never hear of Ctrl-C or of a closed terminal: whoever
    began them tells them to stop, once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    with _answered(_signals(), lambda number, frame: came.append(number)):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})  # which processes inherit
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if came:
        signal.raise_signal(came[0])


@contextmanager
def terminated_as_by_ctrl_c() -> Iterator[None]:
    """Within this context SIGTERM, or SIGHUP of a terminal that is closed, raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with _answered([number for number in _signals() if number != signal.SIGINT], on_signal):
        yield
