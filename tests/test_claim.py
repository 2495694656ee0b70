"""One process a cell: what another is running is left to it, and nothing of it is lost."""

from __future__ import annotations

import errno
import fcntl
import json

import pytest

import forked
from conftest import At, Killed
from hebbbench.errors import CellTaken
from hebbbench.record import store
from hebbbench.training import claim
from hebbbench.training.grid import run_cells
from hebbbench.training.run import Settings


def claims(lab) -> list[str]:
    return [path.suffix for path in (lab.cache / "claims").glob("*")]


def test_a_cell_that_is_being_run_is_refused_until_it_is_done(lab):
    cell, refused = lab.cell("bp"), []

    def run_it_too() -> None:
        assert claims(lab) == [".lock"]
        with pytest.raises(CellTaken, match="digits-mlp · bp · seed 0 is being run by another process") as told:
            lab.run(cell, results=lab.results)
        refused.append(told)

    first = lab.run(cell, results=lab.results, reporter=At(2, run_it_too, "training"))
    assert len(refused) == 1
    assert claims(lab) == []
    assert lab.run(cell, results=lab.results) == first


def test_a_cell_is_free_again_when_its_process_was_killed(lab):
    def die() -> None:
        raise Killed

    cell = lab.cell("bp")
    with pytest.raises(Killed):
        lab.run(cell, reporter=At(2, die, "training"))
    assert claims(lab) == []
    assert lab.run(cell).status == "ok"


def test_other_cells_go_on_beside_one_that_is_taken(lab):
    taken, free = lab.cell("bp"), lab.cell("random")
    settings, said, done = Settings(device="cpu", cache=lab.cache), At(), []

    def run_both() -> None:
        done.extend(run_cells([taken, free], lab.results, settings, said))

    lab.run(taken, results=lab.results, reporter=At(2, run_both, "training"))
    assert [result.rule.name for result in done] == ["random"]
    assert any("skipped: digits-mlp · bp · seed 0 is being run" in line for line in said.said)


def test_a_result_that_is_there_is_given_though_the_cell_is_run_once_more(lab):
    cell, again = lab.cell("bp"), []
    first = lab.run(cell, results=lab.results)
    look = At(2, lambda: again.append(lab.run(cell, results=lab.results)), "training")
    settings = Settings(device="cpu", cache=lab.cache)
    list(run_cells([cell], lab.results, settings, look, force=True))
    assert again == [first]


def test_where_files_cannot_be_locked_cells_run_all_the_same(lab, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(claim.fcntl, "flock", refuse)
    assert lab.run(lab.cell("random")).status == "ok"


def test_a_claim_whose_file_was_removed_under_it_is_taken_anew(tmp_path, monkeypatch):
    own, lock, removed = claim.Claim(tmp_path, "cell"), fcntl.flock, []

    def removed_first(file: int, how: int) -> None:
        if not removed:
            removed.append((tmp_path / "cell.lock").unlink())
        lock(file, how)

    monkeypatch.setattr(claim.fcntl, "flock", removed_first)
    own.take("the cell")
    with pytest.raises(CellTaken):
        claim.Claim(tmp_path, "cell").take("the cell")
    own.release()
    claim.Claim(tmp_path, "cell").take("the cell")


def test_of_two_commands_at_once_one_runs_the_cell_and_both_end_well_in_the_end(lab):
    arguments = ["run", "-p", lab.protocol_file(), "-r", "bp", "-s", "0-3", "--results", str(lab.results)]
    environ = {"HEBBBENCH_CACHE": str(lab.cache), "OMP_NUM_THREADS": "1"}
    both = [forked.hebbbench(*arguments, cwd=lab.root, environ=environ) for _ in range(2)]
    for process in both:
        status, out, err = process.wait()
        assert err == ""
        assert status in (0, 1)
        assert (status == 1) == ("skipped:" in out)
    assert forked.hebbbench(*arguments, cwd=lab.root, environ=environ).wait()[0] == 0
    found = sorted(lab.results.rglob("*.json"))
    assert [json.loads(path.read_text())["status"] for path in found] == ["ok"] * 4
    assert all(item.problem is None for item in store.scan(lab.results))
    assert claims(lab) == []
