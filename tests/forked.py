"""Programs in processes of their own that need not import torch: forked from a process that has, and has done no more.

Importing torch and what an optimizer needs of it takes seconds, a command of a test less than one.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

PRELOADED = ["pytest", "torch", "torch._dynamo", "sklearn.datasets", "hebbbench.cli", "hebbbench.training.grid"]

server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(PRELOADED)


class Forked:
    """A running program. `out` and `err` are the files with its words."""

    def __init__(self, main: Callable[[], object], argv: list[str], cwd: Path, environ: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="forked-")
        self.out, self.err = (Path(self._folder.name) / name for name in ("out", "err"))
        for path in (self.out, self.err):
            path.touch()
        threads = int(environ.get("OMP_NUM_THREADS", torch.get_num_threads()))
        arguments = (main, argv, str(cwd), dict(environ), str(self.out), str(self.err), threads)
        self._process = server.Process(target=_run, args=arguments)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def wait(self, seconds: float = 120.0) -> tuple[int, str, str]:
        """Exit status, standard output and standard error once it has ended; it is killed if that takes too long."""
        self._process.join(seconds)
        if self._process.is_alive():
            self._process.kill()
            raise TimeoutError(f"not done in {seconds} s:\n{self.out.read_text()}{self.err.read_text()}")
        assert self._process.exitcode is not None
        told = self._process.exitcode, self.out.read_text(), self.err.read_text()
        self._folder.cleanup()
        return told


def hebbbench(*arguments: str, cwd: Path, environ: Mapping[str, str] = os.environ) -> Forked:
    """The command line."""
    return Forked(_hebbbench, ["hebbbench", *arguments], cwd, environ)


def run_tests(*arguments: str, cwd: Path, environ: Mapping[str, str] = os.environ) -> Forked:
    """pytest."""
    return Forked(_pytest, ["pytest", *arguments], cwd, environ)


def script(code: str, *arguments: str, cwd: Path, environ: Mapping[str, str] = os.environ) -> Forked:
    """`python -c`."""
    return Forked(_Script(code), ["-c", *arguments], cwd, environ)


def _hebbbench() -> None:
    from hebbbench import cli

    cli.main()


def _pytest() -> None:
    import pytest

    sys.exit(pytest.main(sys.argv[1:]))


class _Script:
    def __init__(self, code: str) -> None:
        self.code = code

    def __call__(self) -> None:
        exec(compile(self.code, "<script>", "exec"), {"__name__": "__main__"})


def _run(
    main: Callable[[], object], argv: list[str], cwd: str, environ: dict[str, str], out: str, err: str, threads: int
) -> None:
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd)
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    torch.set_num_threads(threads)
    sys.argv = argv
    main()
