"""A small world on disk for tests that run cells: tiny protocols, rules from outside, a cache and a results folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before torch is imported: threads that wait by spinning make a step 30 times slower on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Processes of `pytest -n` have a core each, not every core.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import yaml

from hebbbench import cli, registry
from hebbbench.cell import Cell, cells
from hebbbench.progress import Reporter, Silent
from hebbbench.protocol import Protocol
from hebbbench.recipe import Recipe

TINY = {
    "digits-mlp": {"architecture.options.widths": [16, 12], "training.batch_size": 300},
    "digits-deephebb": {"architecture.options.widths": [4, 6, 8], "training.batch_size": 400},
}
ALWAYS = {
    "training.epochs": 2,
    "probe.epochs": 3,
    "probe.lr": 0.01,
    "probe.dropout": 0.25,
    "probe.halve_at": [0.5],
    "probe.statistics_samples": 600,
}


def command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Call it with arguments of the installed command: (exit status, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["hebbbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


class Killed(BaseException):
    """What a process that is killed sees: nothing catches it."""


class At(Silent):
    """Does something at the nth sign of life of all phases, or the nth piece of work of one; remembers what it saw."""

    def __init__(self, n: int = 0, do: Callable[[], object] = lambda: None, phase: str | None = None) -> None:
        self.n, self.do, self.within = n, do, phase
        self.count, self.current = 0, ""
        self.phases: list[str] = []
        self.said: list[str] = []

    def phase(self, name: str, total: int, done: int = 0) -> None:
        self.current = name
        self.phases.append(name)

    def advance(self, steps: int = 1, note: str = "") -> None:
        if self.within is None or (self.within == self.current and steps):
            self.count += 1
            if self.count == self.n:
                self.do()

    def say(self, text: str) -> None:
        self.said.append(text)


NETWORK = '''"""One hidden layer."""

from torch import nn


class Net(nn.Module):
    layout = "flat"

    def __init__(self, input_shape, classes, width=4):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(input_shape[0] * input_shape[1] * input_shape[2], width))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.body(x))
'''
"""An architecture in a file of its own."""


class Lab:
    """`root` holds everything: cache, results, rules and protocols from outside."""

    def __init__(self, root: Path) -> None:
        self.root, self.cache, self.results = root, root / "cache", root / "results"

    def protocol(self, base: str = "digits-mlp", changes: dict[str, Any] | None = None) -> Protocol:
        """A registered protocol at a size that runs in a moment, with the values at dotted paths changed."""
        plain = registry.protocol(base).model_dump(mode="json")
        for path, value in {**ALWAYS, **TINY[base], **(changes or {})}.items():
            *parents, last = path.split(".")
            node = plain
            for part in parents:
                node = node[part]
            node[last] = value
        return Protocol.model_validate(plain)

    def protocol_file(self, base: str = "digits-mlp", changes: dict[str, Any] | None = None) -> str:
        """The same as a file, under the name `tiny`."""
        path = self.root / "tiny.yaml"
        protocol = self.protocol(base, {"name": "tiny", **(changes or {})})
        path.write_text(yaml.safe_dump(protocol.model_dump(mode="json")))
        return str(path)

    def rule(self, name: str, delta: str, more: str = "") -> str:
        """A rule in a file of its own; `delta` is the method's argument list, a colon, and its body."""
        arguments, _, body = delta.partition(":")
        path = self.root / f"{name}.py"
        path.write_text(
            '"""Made by a test."""\nimport torch\nfrom hebbbench import Rule\n\n\n'
            f"class {name.capitalize()}(Rule):\n{more}\n    def delta(self, {arguments}):\n        {body.strip()}\n"
        )
        return str(path)

    def cell(self, rule: str = "bp", protocol: Protocol | None = None, seed: int = 0, **recipe: Any) -> Cell:
        """One cell, under a recipe that sets nothing but what is given."""
        chosen = Recipe.model_validate({"provenance": "default", **recipe})
        (cell,) = cells(protocol or self.protocol(), [rule], [seed], {}, chosen)
        return cell

    def run(self, cell: Cell, reporter: Reporter | None = None, every: float = 60.0, **options: Any) -> Any:
        """The cell's result; `every` is the time between two checkpoints. Stored if `results` is given."""
        from hebbbench.training.run import Settings, run_cell

        settings = Settings(device="cpu", cache=self.cache, checkpoint_seconds=every)
        return run_cell(cell, options.pop("results", None), settings, reporter or Silent(), **options)

    def checkpoints(self) -> list[Path]:
        """Every file in the checkpoint folder."""
        return sorted((self.cache / "checkpoints").glob("*"))


@pytest.fixture(scope="session")
def measured_cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of cards for all tests: each rule's is measured once, by the process that needs it first."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "cards"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured_cards: Path) -> Lab:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cards").symlink_to(measured_cards)
    monkeypatch.setenv("HEBBBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HEBBBENCH_DATA", raising=False)
    monkeypatch.delenv("HEBBBENCH_RESULTS", raising=False)
    return Lab(tmp_path)
