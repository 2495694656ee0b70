"""Cells that are asked for once more: what `--force` runs again, what it leaves, and how it goes on when stopped."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import At, Lab
from hebbbench.cell import Cell
from hebbbench.errors import HebbBenchError, RunInterrupted
from hebbbench.progress import Silent
from hebbbench.training.grid import run_cells
from hebbbench.training.run import Settings
from test_resume import ctrl_c


def run(lab: Lab, planned: list[Cell], reporter: Any = None, **options: Any) -> list[Any]:
    settings = Settings(device="cpu", cache=lab.cache)
    return list(run_cells(planned, lab.results, settings, reporter or Silent(), **options))


def ran(before: list[Any], after: list[Any]) -> list[int]:
    """The seeds whose results are others than before."""
    return [new.seed for old, new in zip(before, after, strict=True) if new.started != old.started or new != old]


@pytest.fixture
def finished(lab) -> tuple[list[Cell], list[Any]]:
    """Three cells, and their results."""
    planned = [lab.cell("bp", seed=seed) for seed in range(3)]
    return planned, run(lab, planned)


@pytest.mark.parametrize("again", [True, False], ids=["with --force", "without"])
def test_a_force_that_was_stopped_goes_on_where_it_was(lab, finished, again):
    planned, before = finished
    steps = 2 * 5  # of a cell: two epochs
    with pytest.raises(RunInterrupted):
        run(lab, planned, At(steps + 3, ctrl_c, "training"), force=True)  # within the second cell
    first = run(lab, planned[:1])
    assert ran(before[:1], first) == [0]
    after = run(lab, planned, force=again)
    assert [result.cost.resumed for result in after] == [0, 1, 0]
    assert after[0] == first[0]
    assert ran(before, after) == [0, 1, 2]
    assert [result.measurement() for result in after] == [result.measurement() for result in before]


def test_the_next_force_begins_anew(lab, finished):
    planned, before = finished
    once = run(lab, planned, force=True)
    twice = run(lab, planned, force=True)
    assert ran(before, once) == ran(once, twice) == [0, 1, 2]
    assert run(lab, planned) == twice


def test_a_cell_stopped_without_force_is_begun_anew_by_it_and_gone_on_with_after(lab):
    cell = lab.cell("bp")
    with pytest.raises(RunInterrupted):
        run(lab, [cell], At(7, ctrl_c, "training"))
    with pytest.raises(RunInterrupted):
        run(lab, [cell], At(3, ctrl_c, "training"), force=True)
    (result,) = run(lab, [cell], force=True)
    assert result.cost.resumed == 1


def test_networks_that_train_together_are_run_again_once(lab, tmp_path):
    from test_beside import planned

    cells = planned("bp")
    before = run(lab, cells)
    assert run(lab, cells) == before
    after = run(lab, cells, force=True)
    assert ran(before, after) == [0, 1, 2]
    assert run(lab, cells) == after


# A failure


def test_a_cell_that_failed_goes_on_from_its_checkpoint(lab):
    broken = lab.root / "broken"
    broken.touch()
    rule = lab.rule(
        "shaky",
        "grad, state:\n        state['n'] += 1\n"
        f"        if state['n'] > 40 and __import__('os').path.exists({str(broken)!r}):\n"
        "            raise OSError('gone for a while')\n        return -grad",
        "    def init(self, weight):\n        return {'n': torch.zeros((), dtype=torch.long)}",
    )
    cell = lab.cell(rule, epochs=20)
    said = At()
    failed = lab.run(cell, said, every=0.0, results=lab.results)
    assert failed.status == "failed"
    assert "gone for a while" in failed.reason
    assert any("its checkpoint stands" in line for line in said.said)
    broken.unlink()
    result = lab.run(cell, every=0.0, results=lab.results)
    assert (result.status, result.cost.resumed) == ("ok", 1)
    assert lab.checkpoints() == []


# Code that changes meanwhile


@pytest.mark.parametrize("what", ["rule", "architecture"])
def test_a_cell_whose_code_was_edited_since_it_was_planned_is_not_run(lab, what):
    from conftest import NETWORK

    network = lab.root / "net.py"
    network.write_text(NETWORK)
    rule = lab.rule("edited", "grad: return -grad")
    protocol = lab.protocol(
        changes={"architecture": {"name": str(network), "options": {}}, "plastic": ["1"], "free": []}
    )
    cell = lab.cell(rule, protocol)
    assert cell.source_hash
    assert cell.network_hash
    if what == "rule":
        lab.rule("edited", "grad: return -2 * grad")
    else:
        network.write_text(NETWORK.replace("width=4", "width=5"))
    with pytest.raises(HebbBenchError, match=rf"was edited after this command began: .* of another {what} "):
        run(lab, [cell])
    assert list(lab.results.rglob("*.json")) == []
