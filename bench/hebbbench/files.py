"""Files that are written whole or not at all. Every room may use this one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

from hebbbench.errors import ResultError


def check_writable(folder: Path, kind: Literal["results", "cache"] = "results") -> None:
    """Fail before any training if nothing could be saved in `folder`.

    Args:
        kind: what it is for, and the option with which another can be chosen.

    Raises:
        ResultError: the folder cannot be created or written, or has under 16 MB left.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-"):
            pass
        status = os.statvfs(folder)
    except OSError as error:
        raise ResultError(
            f"the {kind} folder {folder} cannot be written: {error.strerror}. Choose another with --{kind}."
        ) from error
    if status.f_bavail * status.f_frsize < 16 * 2**20:
        raise ResultError(f"the disk of {folder} is full. Free some space or choose another folder with --{kind}.")


def write_atomic(path: Path, content: bytes, option: str = "--results") -> None:
    """Write `content` to `path` so that the file is the old one or the new one, never a part of either.

    Args:
        option: of the command line, with which another folder can be chosen.

    Raises:
        ResultError: the folder cannot be written or the disk is full.
    """
    path = path.resolve() if path.is_symlink() else path
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)  # a device or pipe, such as /dev/stdout: nothing to replace
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ResultError(
            f"{path} cannot be written: {error.strerror}. Free some space or choose another folder with {option}."
        ) from error
