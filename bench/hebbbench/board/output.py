"""Where a board is written: the form that a file's ending asks for, and the one file that belongs to the record."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from hebbbench.board.content import Board, collect
from hebbbench.board.readme import readme_beside, refresh, stale, top
from hebbbench.errors import HebbBenchError
from hebbbench.files import write_atomic
from hebbbench.plan import Sources, gather, narrowed

ENDINGS = (".md", ".csv", ".json", ".html")
PUBLIC, RECORD = "LEADERBOARD.md", "results"
SHOWN_DIFFERENCES = 40


def rendered(board: Board, ending: str = ".md") -> str:
    """The board as Markdown, as CSV, as JSON or as a web page."""
    if ending == ".csv":
        from hebbbench.board.export import csv_text

        return csv_text(board)
    if ending == ".json":
        from hebbbench.board.export import json_text

        return json_text(board)
    if ending == ".html":
        from hebbbench.board.webpage import web_page

        return web_page(board)
    from hebbbench.board.markdown import page

    return page(board)


def read(results: Path, protocols: Sequence[str] = ()) -> Sources:
    """What a board is computed from.

    Args:
        protocols: these alone, by name or by path; all of the registry's if none is named.

    Raises:
        HebbBenchError: a protocol, recipe or rule file of the repository is malformed.
    """
    sources = gather(results)
    return narrowed(sources, protocols) if protocols else sources


def write(results: Path, path: Path, protocols: Sequence[str] = ()) -> list[Path]:
    """Write the board to `path` in the form of its ending, each file whole or not at all; returns what was written.

    With the public board go the top rows in the README beside it, if that has the markers for them.

    Raises:
        HebbBenchError: as `read`; the ending is none of `ENDINGS`; a part was to replace the public board; or a file
            cannot be written.
    """
    ending = _ending(path)
    _refuse_a_part(path, protocols)
    sources = read(results, protocols)
    write_atomic(path, rendered(collect(sources, seen_from(results, path.parent)), ending).encode(), "--output")
    readme = readme_beside(path) if belongs(path, results) else None
    if readme is None:
        return [path]
    refresh(readme, top(sources))
    return [path, readme]


def check(results: Path, path: Path, protocols: Sequence[str] = ()) -> str | None:
    """None if the files are what the results say, else a message with the first lines that differ.

    Raises:
        HebbBenchError: as `write`, or the file is the public board of other results.
    """
    ending = _ending(path)
    _refuse_a_part(path, protocols)
    if record_of(path) is not None and not belongs(path, results):
        raise HebbBenchError(
            f"{path} shows the results in {record_of(path)}, not those in {results}. Name the file that shows these "
            f"with --output, or its own results with --results {record_of(path)}."
        )
    named = [part for protocol in protocols for part in ("--protocol", protocol)]
    command = shlex.join(["hebbbench", "leaderboard", "--results", str(results), *named, "--output", str(path)])
    sources = read(results, protocols)
    readme = readme_beside(path) if belongs(path, results) else None
    if readme is not None and stale(readme, top(sources)):
        return f"{readme} does not show the board's top rows. Write them anew with: {command}"
    if not path.is_file():
        return f"{path} does not exist. Write it with: {command}"
    expected = rendered(collect(sources, seen_from(results, path.parent)), ending)
    actual = path.read_bytes().decode(errors="replace")
    if actual == expected:
        return None
    difference = list(
        difflib.unified_diff(
            actual.split("\n"), expected.split("\n"), str(path), f"what {results}/ says", lineterm="", n=0
        )
    )
    shown = difference[:SHOWN_DIFFERENCES]
    more = [f"… and {len(difference) - len(shown)} more lines"] if len(difference) > len(shown) else []
    head = f"{path} is not what the results say. Write it anew with: {command}"
    return "\n".join([head, *shown, *more])


def record_of(path: Path) -> Path | None:
    """The results that a public board shows: the folder `results` beside a LEADERBOARD.md. None for any other file."""
    folder = path.parent / RECORD
    return folder if path.name == PUBLIC and folder.is_dir() else None


def belongs(path: Path, results: Path) -> bool:
    """Whether `path` is the public board of these very results."""
    record = record_of(path)
    return record is not None and record.resolve() == results.resolve()


def seen_from(results: Path, folder: Path) -> str:
    """The path of the results for a page in `folder`; absolute if the two have nothing but the root in common."""
    there, here = os.path.abspath(results), os.path.abspath(folder)
    if os.path.commonpath([there, here]) == os.path.sep:
        return Path(there).as_posix()
    return Path(os.path.relpath(there, here)).as_posix()


def _ending(path: Path) -> str:
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise HebbBenchError(
            f"--output {path}: the board cannot be written as '{path.suffix or path.name}'. Valid endings: "
            f"{', '.join(ENDINGS)}; a - prints it."
        )
    return ending


def _refuse_a_part(path: Path, protocols: Sequence[str]) -> None:
    if protocols and record_of(path) is not None:
        raise HebbBenchError(
            f"--protocol shows part of the board, and {path} holds all of it. Print the part with --output -, or "
            "name another file."
        )
