"""What a person sees while a cell runs: a live bar on a terminal, plain lines in a file."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from hebbbench.errors import HebbBenchError


@runtime_checkable
class Reporter(Protocol):
    """Where a run says what it is doing."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        """A new phase of `total` steps begins, `done` of which lie behind it."""
        ...

    def advance(self, steps: int = 1, note: str = "") -> None:
        """The current phase went on by `steps`; `note` is its newest figure."""
        ...

    def say(self, text: str) -> None:
        """One line worth keeping."""
        ...

    def end(self) -> None:
        """The current phase is over."""
        ...

    def close(self) -> None:
        """The run is over."""
        ...


class Silent:
    """Says nothing; for use as a library."""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        pass

    def advance(self, steps: int = 1, note: str = "") -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def end(self) -> None:
        pass

    def close(self) -> None:
        pass


class Plain:
    """Lines without control characters: one when a phase begins, one every `interval` seconds, one when it ends."""

    def __init__(self, interval: float = 15.0, stderr: bool = False) -> None:
        self._interval = interval
        self._stderr = stderr
        self._name = ""
        self._total = self._done = self._began = 0
        self._start = self._last = 0.0
        self._note = ""

    def phase(self, name: str, total: int, done: int = 0) -> None:
        self.end()
        self._name, self._total, self._done, self._began, self._note = name, total, done, done, ""
        self._start = self._last = time.monotonic()

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._done += steps
        self._note = note or self._note
        now = time.monotonic()
        if now - self._last >= self._interval and self._done < self._total:
            self._last = now
            passed = self._done - self._began
            left = (now - self._start) / passed * (self._total - self._done) if passed else None
            self._line(f"{self._done}/{self._total}" + ("" if left is None else f", {duration(left)} left"))

    def say(self, text: str) -> None:
        print(text, file=sys.stderr if self._stderr else sys.stdout, flush=True)

    def end(self) -> None:
        if self._name:
            passed = duration(time.monotonic() - self._start)
            whole = self._done >= self._total
            self._line(f"done in {passed}" if whole else f"stopped at {self._done}/{self._total} after {passed}")
        self._name = ""

    def close(self) -> None:
        self.end()

    def _line(self, state: str) -> None:
        self.say("  " + ": ".join((self._name, state)) + (f"  {self._note}" if self._note else ""))


class Live:
    """A progress bar a phase, drawn by rich."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("  {task.description}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="cyan", markup=False),
            console=console,
            refresh_per_second=5,
        )
        self._task: TaskID | None = None
        self._bars.start()

    def phase(self, name: str, total: int, done: int = 0) -> None:
        self._task = self._bars.add_task(name, total=total, completed=done, note="")

    def advance(self, steps: int = 1, note: str = "") -> None:
        if self._task is not None:
            if note:
                self._bars.update(self._task, advance=steps, note=note)
            else:
                self._bars.update(self._task, advance=steps)

    def say(self, text: str) -> None:
        self._bars.console.print(text, highlight=False, markup=False)

    def end(self) -> None:
        self._task = None

    def close(self) -> None:
        self._bars.stop()


def reporter(stderr: bool = False) -> Reporter:
    """The reporter that suits the standard output (or error): live on a terminal, plain elsewhere."""
    stream = sys.stderr if stderr else sys.stdout
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return Live(Console(stderr=stderr))
    return Plain(stderr=stderr)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 0.4 s, 12 s, 3 min 05 s, 14 h 20 min, 9 days, 3 years."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 100 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    days = round(whole / 86400)
    return f"{days} days" if days < 730 else f"{round(days / 365.25)} years"


def parse_duration(text: str) -> float:
    """Seconds of a stretch of time as a person types it: 90s, 9m, 1h30m, or a plain number of seconds.

    Raises:
        HebbBenchError: the text is none of these, or no time at all.
    """
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip())
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    if not (hours or minutes or seconds):
        raise HebbBenchError(
            f"the time limit '{text}' is no stretch of time. Write 90s, 9m, 1h30m or a number of seconds."
        )
    return 3600.0 * hours + 60 * minutes + seconds
