"""Errors a person can act on: each names the thing, the value, the alternatives and the remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from traceback import walk_tb


class HebbBenchError(Exception):
    """Base of every error HebbBench raises on purpose. The command line prints it without a traceback.

    `exit_code` is the process's exit status when the error reaches the command line.
    """

    exit_code = 2


class ProtocolError(HebbBenchError):
    """A protocol or recipe is malformed, or asks for a combination that cannot be run."""


class RuleError(HebbBenchError):
    """A rule's file, signals or hyper-parameters are wrong."""


class UnknownNameError(HebbBenchError):
    """A rule, architecture, protocol, dataset or key of that name does not exist."""


class DataError(HebbBenchError):
    """A dataset is missing, corrupt, or not the one the protocol names."""


class ResultError(HebbBenchError):
    """A result file is malformed, or cannot be written."""


class CellTaken(HebbBenchError):
    """Another process is running this very cell."""


class RunInterrupted(HebbBenchError):
    """A run was stopped on request; what it had done is in its checkpoint."""

    exit_code = 130


class TimeLimitReached(RunInterrupted):
    """A run stopped because its time limit was near; the next one goes on where it stopped."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, try again


class LimitTooShort(HebbBenchError):
    """A time limit under which nothing would ever be done, however often the command is given."""


class NothingScored(HebbBenchError):
    """A search in which every trial diverged or failed: what was asked was right, and nothing was found."""

    exit_code = 1


def nearest(value: str, names: Sequence[str]) -> str | None:
    """The name that may have been meant, if one is near enough."""
    return next(iter(get_close_matches(value, names, n=1, cutoff=0.55)), None)


def suggestion(value: str, alternatives: Iterable[str]) -> str:
    """A sentence naming the nearest valid name, if there is one, and all valid names."""
    names = sorted(alternatives)
    near = nearest(value, names)
    hint = f"Did you mean '{near}'? " if near is not None else ""
    listed = ", ".join(names) if names else "none"
    return f"{hint}Valid: {listed}."


def unknown_name(kind: str, value: str, alternatives: Iterable[str], remedy: str = "") -> UnknownNameError:
    """The error for a name that does not exist, with the nearest one that does."""
    text = f"there is no {kind} '{value}'. {suggestion(value, alternatives)}"
    return UnknownNameError(f"{text} {remedy}".rstrip())


def one_line(error: BaseException) -> str:
    """An exception's text on one line."""
    return " ".join(str(error).split()) or "no message"


def place_in(error: BaseException, file: Path) -> str:
    """Where in a file the exception arose, as ' (mine.py, line 8)'; nothing if it did not come through there."""
    lines = [number for frame, number in walk_tb(error.__traceback__) if Path(frame.f_code.co_filename) == file]
    return f" ({file.name}, line {lines[-1]})" if lines else ""
