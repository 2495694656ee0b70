"""Where a cell ran. Each field has its own getter; one that fails leaves null and a reason."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import hebbbench
from hebbbench.record.schema import Environment

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "pydantic")

WHERE_USED = {"timm": "timm", "torchvision": "torchvision", "PIL": "pillow"}
"""Modules that make some networks and decode some images → their packages, named where this process has them loaded."""


@dataclass(frozen=True)
class Code:
    """The repository's commit whose code runs, whether its files differ from it, and why either is not known."""

    commit: str | None
    dirty: bool | None
    unavailable: dict[str, str]


def code() -> Code:
    """The code as it is now; to be asked when a cell begins, for a working tree may move on while it runs."""
    unavailable: dict[str, str] = {}
    commit = _attempt("commit", _commit, unavailable)
    return Code(commit, _attempt("dirty", _dirty, unavailable), unavailable)


def describe(
    device: str,
    determinism_probe: bool | None,
    processes: int = 1,
    routes: dict[str, str] | None = None,
    replayed: int = 0,
    began_with: Code | None = None,
) -> Environment:
    """The environment of a run on `device` ('cpu', 'cuda', 'cuda:0').

    Args:
        determinism_probe: whether the first steps, run twice, gave the same bits; None if that was not tried.
        processes: over how many the cell was divided.
        routes: outer products that went an unusual way, see `hebbbench.plasticity.routes`.
        replayed: steps that were, see `hebbbench.training.replay`.
        began_with: the code when the run began; as it is now if None.
    """
    import torch

    from hebbbench import kernels

    ran = began_with or code()
    unavailable = dict(ran.unavailable)

    def attempt(field: str, getter: Callable[[], Any]) -> Any:
        return _attempt(field, getter, unavailable)

    on_cuda = device.startswith("cuda")
    used = (package for module, package in WHERE_USED.items() if module in sys.modules)
    return Environment(
        hebbbench=attempt("hebbbench", lambda: hebbbench.__version__),
        commit=ran.commit,
        dirty=ran.dirty,
        python=attempt("python", platform.python_version),
        packages={name: attempt(f"packages.{name}", partial(metadata.version, name)) for name in (*PACKAGES, *used)},
        platform=attempt("platform", lambda: f"{platform.system()} {platform.machine()}"),
        cpu=attempt("cpu", _cpu),
        threads=attempt("threads", torch.get_num_threads),
        device=device,
        device_name=attempt("device_name", lambda: torch.cuda.get_device_name(device) if on_cuda else _cpu()),
        cuda=attempt("cuda", lambda: torch.version.cuda if on_cuda else None),
        precision={
            "allow_tf32_matmul": attempt("precision.matmul", lambda: torch.backends.cuda.matmul.allow_tf32),
            "allow_tf32_cudnn": attempt("precision.cudnn", lambda: torch.backends.cudnn.allow_tf32),
        },
        deterministic=attempt("deterministic", torch.are_deterministic_algorithms_enabled),
        determinism_probe=determinism_probe,
        processes=processes,
        routes=routes or {},
        replayed=replayed,
        kernels=attempt("kernels", lambda: kernels.version(torch.device(device))),
        unavailable=unavailable,
    )


def _attempt(field: str, getter: Callable[[], Any], unavailable: dict[str, str]) -> Any:
    try:
        return getter()
    except Exception as error:
        unavailable[field] = f"{type(error).__name__}: {error}"
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=_package(), capture_output=True, text=True, timeout=10, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or "git failed")
    return done.stdout.strip()


def _package() -> Path:
    return Path(hebbbench.__file__).resolve().parent


def _own_repository() -> None:
    """Refuse another repository that this package merely lies in, such as in a virtual environment there."""
    try:
        _git("ls-files", "--error-unmatch", "--", "__init__.py")
    except RuntimeError as error:
        raise RuntimeError(f"no repository has {_package()}: {error}") from error


def _commit() -> str:
    given = os.environ.get("HEBBBENCH_COMMIT")
    if given:
        return given
    _own_repository()
    return _git("rev-parse", "HEAD")


def _dirty() -> bool:
    """Whether files differ from the commit, or lie among its code and are not in it, as a rule not yet added does.

    Results, and the pages that show them, are outputs, not code, and do not count.
    """
    if os.environ.get("HEBBBENCH_COMMIT"):
        raise RuntimeError("the commit was given by HEBBBENCH_COMMIT; there is no repository to compare with")
    _own_repository()
    places = [":/", *(f":(top,exclude){name}" for name in ("results", "LEADERBOARD.md", "README.md"))]
    code = [":/bench", ":/rules", ":/architectures", ":/protocols"]
    return bool(
        _git("status", "--porcelain", "--untracked-files=no", "--", *places)
        or _git("ls-files", "--others", "--exclude-standard", "--", *code)
    )


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
