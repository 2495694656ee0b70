"""One canonical JSON file a cell, written whole or not at all."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hebbbench.errors import HebbBenchError, ResultError
from hebbbench.files import write_atomic
from hebbbench.record.schema import Result
from hebbbench.sections import AxisValue
from hebbbench.validation import validate

CANONICAL: dict[str, Any] = {"sort_keys": True, "ensure_ascii": False, "allow_nan": False}

BREAK = re.compile(r"\n *")
"""The end of a line and the indentation of the next; no string holds one unescaped."""


def result_path(root: Path, protocol: str, rule: str, axes: dict[str, AxisValue], seed: int) -> Path:
    """Where a cell's result lies: root/PROTOCOL/RULE/[axis=value,…/]seed-N.json."""
    folder = root / protocol / rule
    if axes:
        folder /= ",".join(f"{name}={axes[name]}" for name in sorted(axes))
    return folder / f"seed-{seed}.json"


def to_text(result: Result) -> str:
    """The canonical text: sorted keys, two spaces, one trailing newline, no NaN."""
    return json.dumps(result.model_dump(mode="json"), indent=2, **CANONICAL) + "\n"


def _is_text_of(text: str, result: Result) -> bool:
    """Whether a file's text is the canonical one. Where its lines break is not looked at: writing it so takes long."""
    plain = json.dumps(result.model_dump(mode="json"), separators=(",", ": "), **CANONICAL)
    return text.startswith('{\n  "') and text.endswith("\n}\n") and BREAK.sub("", text) == plain


def check_exists(root: Path, parts: Sequence[Path] = ()) -> None:
    """Refuse a folder that is not there, which else would pass for one without results.

    Args:
        parts: files and folders in it that were asked for by name.

    Raises:
        ResultError: `root` is no folder.
    """
    if root.is_dir():
        return
    gone = [path for path in parts if not path.exists()]
    if gone:
        raise ResultError(
            f"there is no file or folder {gone[0]} here, nor a results folder {root}. Name what exists: a folder of "
            "results with --results, and files in it."
        )
    if parts:
        raise ResultError(
            f"{parts[0]} is looked at as part of a results folder, and there is no folder {root}. Name the one it lies "
            f"in, or is: --results {parts[0]}"
        )
    raise ResultError(f"there is no results folder {root}. Name one that exists with --results.")


def save(result: Result, root: Path) -> Path:
    """Write a result where it belongs under `root`; returns the path."""
    path = result_path(root, result.protocol.name, result.rule.name, result.axes, result.seed)
    write_atomic(path, to_text(result).encode())
    return path


def load(path: Path) -> Result:
    """The result in a file.

    Raises:
        ResultError: the file cannot be read, is not JSON, or does not fit the schema.
    """
    return _load(path)[1]


def _load(path: Path) -> tuple[str, Result]:
    """The text of a file, and its result."""
    try:
        text = path.read_text(encoding="utf-8")
        plain = json.loads(text, parse_constant=_refuse)
    except OSError as error:
        raise ResultError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{path} is not valid JSON: {error}. Delete it and run the cell again.") from error
    return text, parse(plain, path)


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is not a number JSON knows")


def parse(plain: Any, path: Path) -> Result:
    """`plain` as a result, checked against the schema and against the place where it lies."""
    if not isinstance(plain, dict):
        raise ResultError(f"{path} must hold an object, not {type(plain).__name__}.")
    try:
        return validate(Result, plain, str(path))
    except HebbBenchError as error:
        raise ResultError(str(error)) from error


def load_own(path: Path, root: Path) -> Result:
    """The result in a file under `root`, if it is one that a run has written there.

    Raises:
        ResultError: as `load`; or it belongs elsewhere, or was edited.
    """
    text, result = _load(path)
    problem = _misplaced(path, root, text, result)
    if problem is not None:
        raise ResultError(f"{problem} Delete it, and run the cell again.")
    return result


def _misplaced(path: Path, root: Path, text: str, result: Result) -> str | None:
    expected = result_path(root, result.protocol.name, result.rule.name, result.axes, result.seed)
    if path != expected:
        return f"{path} holds the cell that belongs at {expected}."
    if not result.is_of_its_cell():
        return f"{path} has a cell that is not of its protocol, rule, recipe, seed and data; it was edited by hand."
    return None if _is_text_of(text, result) else f"{path} is not in canonical form; it was edited by hand."


@dataclass(frozen=True)
class Stored:
    """A file under the results folder: its result, or the reason why it has none. Also a folder that is closed."""

    path: Path
    result: Result | None
    problem: str | None


def entries(root: Path) -> list[Path]:
    """Every JSON file under `root`, and every folder there that cannot be read and may hold some, in path order.

    Raises:
        ResultError: `root` itself cannot be read.
    """
    closed: list[Path] = []

    def refused(error: OSError) -> None:
        if isinstance(error, FileNotFoundError):
            return
        if Path(error.filename) == root:
            raise ResultError(
                f"the folder {root} cannot be read: {error.strerror}. Give read permission there, or name another."
            ) from error
        closed.append(Path(error.filename))

    found = [
        Path(folder, name)
        for folder, folders, files in os.walk(root, onerror=refused)
        for name in (*folders, *files)
        if name.endswith(".json")
    ]
    return sorted({*found, *closed})


def holds(path: Path) -> bool:
    """Whether there is a file, or it cannot be told because its folder is closed: loading it says so."""
    try:
        return path.exists()
    except PermissionError:
        return True


def scan(root: Path) -> Iterator[Stored]:
    """Every JSON file under `root`, in path order. What is no result, lies in the wrong place, or cannot be read, says
    why."""
    for path in entries(root):
        try:
            text, result = _load(path)
        except ResultError as error:
            yield Stored(path, None, str(error))
            continue
        problem = _misplaced(path, root, text, result)
        yield Stored(path, None if problem else result, problem)
