"""A run under a time limit stops at a checkpoint before it, wherever it is, and goes on with the same bits."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import At, Lab
from hebbbench import cli, registry
from hebbbench.cell import cells
from hebbbench.errors import HebbBenchError, LimitTooShort, RunInterrupted, TimeLimitReached
from hebbbench.progress import Silent, parse_duration
from hebbbench.protocol import Protocol
from hebbbench.record import store
from hebbbench.training import interrupt, run
from hebbbench.training.grid import run_cells
from hebbbench.training.interrupt import LEAVE_SECONDS, StopRequest, TimeLimit, process_began
from hebbbench.training.run import Settings


class Clock:
    """A clock that stands still until told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


class Costly(At):
    """Every piece of work takes a second of the clock."""

    def __init__(self, clock: Clock, seconds: float = 1.0) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def advance(self, steps: int = 1, note: str = "") -> None:
        super().advance(steps, note)
        if steps:
            self.clock.now += self.seconds


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("9m", 540), ("1h30m", 5400), ("45", 45), ("1h1m1s", 3661), (" 2h ", 7200)]
)
def test_times_are_read_as_a_person_types_them(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0m", "nine", "9 m", "-5", "1.5h", "30m1h", "5d"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(HebbBenchError, match=r"is no stretch of time\. Write 90s, 9m, 1h30m"):
        parse_duration(text)


def test_the_longest_piece_of_work_is_kept_in_reserve_twice(clock):
    limit = TimeLimit(100)
    request = StopRequest(limit)
    clock.now += 30  # what comes before the first look is setting up, and no measure of a step
    assert not request.asked()
    clock.now += 10
    assert not request.asked()
    clock.now += 100 - 30 - 10 - 2 * 10 - LEAVE_SECONDS - 0.1
    assert limit.left() == pytest.approx(2 * 10 + LEAVE_SECONDS + 0.1)
    assert request.asked()  # the last piece took 39 seconds
    assert limit.setup == 30


def test_without_a_limit_time_stops_nothing(clock):
    request = StopRequest()
    clock.now += 1e9
    assert not request.asked()


def limited(lab: Lab, seconds: float) -> Settings:
    return Settings(device="cpu", cache=lab.cache, limit=TimeLimit(seconds))


@pytest.mark.parametrize("recipe", [{}, {"schedule": "layerwise"}], ids=["joint", "layerwise"])
def test_stopped_by_its_limit_again_and_again_a_cell_gives_the_same_bits(lab, clock, recipe):
    cell = lab.cell("ghl", lab.protocol("digits-mlp", {"training.epochs": 4, "budget.epochs": 4}), **recipe)
    whole = lab.run(cell)
    stops, seen = [], Costly(clock)
    for _ in range(50):
        began = clock.now
        try:
            (result,) = run_cells([cell], lab.results, limited(lab, 13), seen)
            break
        except TimeLimitReached as stop:
            assert clock.now - began <= 13 - LEAVE_SECONDS
            stops.append(str(stop))
    assert result.measurement() == whole.measurement()
    assert result.cost.resumed == len(stops) > 2
    assert any("after step" in text for text in stops)
    assert any("after probe epoch" in text for text in stops)
    assert all("the time limit of 13 s is near. Run the same command again" in text for text in stops)


def test_an_epoch_of_the_probe_need_not_end_before_the_limit(lab, clock, monkeypatch):
    """Half an epoch is given up, and done again with the same bits."""
    from hebbbench.training.probe import LinearProbe

    cell = lab.cell("random", lab.protocol("digits-mlp", {"probe.batch_size": 100, "probe.epochs": 3}))
    whole = lab.run(cell)
    begun = []
    train_epoch = LinearProbe.train_epoch

    def slow(self, train, pause):
        def later() -> None:
            clock.now += 1
            pause()

        begun.append(self.epoch)
        train_epoch(self, train, later)

    monkeypatch.setattr(LinearProbe, "train_epoch", slow)
    for _ in range(9):
        try:
            (result,) = run_cells([cell], lab.results, limited(lab, 20), Silent())
            break
        except TimeLimitReached:
            pass
    assert result.measurement() == whole.measurement()
    assert len(begun) > len(set(begun)) == 3


def test_the_published_read_out_goes_on_where_it_stopped(lab, clock):
    spec = {"epochs": 4, "batch_size": 300, "lr": 0.01, "dropout": 0.5, "layer_norm": True}
    cell = lab.cell("random", lab.protocol("digits-mlp", {"published_probe": spec}))
    whole = lab.run(cell)
    phases: list[tuple[str, int]] = []

    class Phases(Costly):
        def phase(self, name: str, total: int, done: int = 0) -> None:
            super().phase(name, total, done)
            phases.append((name, done))

    for _ in range(20):
        try:
            (result,) = run_cells([cell], lab.results, limited(lab, 12), Phases(clock))
            break
        except TimeLimitReached:
            pass
    assert result.measurement() == whole.measurement()
    assert any(name == "published read-out" and 0 < done < 4 for name, done in phases)


def test_no_cell_is_begun_for_which_there_is_no_time(lab, clock):
    class SlowStart(Costly):
        def phase(self, name: str, total: int, done: int = 0) -> None:
            super().phase(name, total, done)
            self.clock.now += 10 * (name == "training")

    cells = [lab.cell("random", seed=seed) for seed in range(20)]
    lab.run(cells[0])  # decodes the data
    began = clock.now
    lab.run(cells[0], SlowStart(clock))
    twice = 2 * (clock.now - began)
    with pytest.raises(TimeLimitReached, match=r"stopped before cell 3 of 20: the time limit of"):
        list(run_cells(cells, lab.results, limited(lab, twice + 20), SlowStart(clock)))
    assert len(list(lab.results.rglob("*.json"))) == 2
    assert lab.checkpoints() == []


def test_a_limit_that_starting_alone_takes_is_a_mistake_and_not_to_be_tried_again(lab, clock):
    lab.run(lab.cell("random"))  # decodes the data
    settings = Settings(device="cpu", cache=lab.cache, limit=TimeLimit(5, clock.now - 4))
    message = r"limit of 5\.0 s is too short: 4\.0 s passed before anything could be begun.* at least about 8\.0 s\."
    with pytest.raises(LimitTooShort, match=message) as told:
        list(run_cells([lab.cell("bp")], lab.results, settings, Silent()))
    assert told.value.exit_code == 2
    assert list(lab.results.rglob("*.json")) == lab.checkpoints() == []


def test_what_need_not_be_done_again_makes_no_limit_too_short(lab, clock, monkeypatch):
    def slow(*arguments, **options):
        clock.now += 10
        return load(*arguments, **options)

    load = run.load
    monkeypatch.setattr(run, "load", slow)
    cells = [lab.cell("bp")]
    with pytest.raises(TimeLimitReached, match="before cell 1 of 1"):  # decoding took it
        list(run_cells(cells, lab.results, limited(lab, 5), Silent()))
    with pytest.raises(LimitTooShort, match=r"10\.0 s passed|10 s passed"):
        list(run_cells(cells, lab.results, limited(lab, 5), Silent()))


def test_a_finished_cell_is_given_whatever_the_clock_says(lab, clock):
    cell = lab.cell("random")
    done = lab.run(cell, results=lab.results)
    settings, said = limited(lab, 5), At()
    clock.now += 10
    assert list(run_cells([cell], lab.results, settings, said)) == [done]
    assert any("done before" in line for line in said.said)
    with pytest.raises(LimitTooShort):
        list(run_cells([cell], lab.results, settings, said, force=True))


def test_a_limit_within_which_features_are_never_extracted_is_a_mistake(lab, clock):
    cell = lab.cell("random", epochs=0)
    lab.run(cell)  # decodes the data
    with pytest.raises(TimeLimitReached, match="after probe epoch 0 of 3: the time limit of 5"):
        list(run_cells([cell], lab.results, limited(lab, 5), Costly(clock)))  # the body was drawn, and is kept
    with pytest.raises(LimitTooShort, match=r"too short: stopped after probe epoch 0 of 3, where it began: .* 10 s\."):
        list(run_cells([cell], lab.results, limited(lab, 5), Costly(clock)))
    assert list(lab.results.rglob("*.json")) == []  # above all no failed one
    (result,) = run_cells([cell], lab.results, limited(lab, 60), Costly(clock))
    assert result.status == "ok"


def test_features_that_no_limit_was_left_for_behind_other_cells_are_tried_again(lab, clock):
    cell = lab.cell("random", epochs=0)
    for _ in range(3):
        settings = limited(lab, 5)
        settings.limit.cells = 1
        with pytest.raises(TimeLimitReached, match="after probe epoch 0 of 3"):
            list(run_cells([cell], lab.results, settings, Costly(clock)))


def test_networks_trained_together_that_never_end_within_a_limit_say_how_long_they_need(lab, clock):
    plain = registry.protocol("sre-mlp").model_dump(mode="json")
    plain["training"]["epochs"] = plain["budget"]["epochs"] = 1
    (cell, *_) = cells(Protocol.model_validate(plain), ["bp"], [0], {"optimizer": "sgd", "decay": 0.0})
    lab.run(lab.cell("random"))
    list(run_cells([cell], lab.results, Settings(device="cpu", cache=lab.cache), Silent()))  # decodes the data
    (path,) = lab.results.rglob("*.json")
    path.unlink()

    class Steps(Costly):
        def advance(self, steps: int = 1, note: str = "") -> None:
            super().advance(steps, note)
            clock.now += steps - 1

    with pytest.raises(LimitTooShort, match=r"of 1 networks, .* none came to its end") as told:
        list(run_cells([cell], lab.results, limited(lab, 60), Steps(clock)))
    needed = re.search(r"at least about (\d+) min (\d+) s", str(told.value))
    assert 60 * int(needed[1]) + int(needed[2]) == pytest.approx(20000 // 256 + 1, abs=5)


def test_the_clock_starts_with_the_process(monkeypatch):
    """On Linux; elsewhere with what it is told."""
    code = "from hebbbench.training.interrupt import process_began as b; import time; print(b(time.monotonic()))"
    before = time.monotonic()
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    after = time.monotonic()
    assert before - 0.02 <= float(told) <= after  # to a tick of the system's clock
    if sys.platform == "linux":
        assert float(told) - before < (after - before) / 2
    monkeypatch.setattr(Path, "read_text", lambda self: "9 (odd) name) S 1")
    assert process_began(5.0) == 5.0


def test_who_came_late_leaves_early(clock):
    limit = TimeLimit(100, clock.now - 40)
    assert limit.left() == 60
    assert limit.spare(39)
    assert not limit.spare(40)
    assert TimeLimit(100).spare(98.5)


def test_what_precedes_a_cells_first_stop_is_setting_up(clock):
    limit = TimeLimit(100)
    limit.begin()
    clock.now += 7  # its card, its data
    request = StopRequest(limit)
    clock.now += 5
    request.asked()
    assert limit.setup == 12


def test_the_command_stops_in_time_exits_75_and_goes_on(lab, monkeypatch, capsys):
    """With a real clock: a cell that needs more than the limit is stopped inside it, and the rest comes later."""
    path = lab.protocol_file("digits-mlp", {"training.epochs": 50000, "budget.epochs": 50000})
    arguments = ["hebbbench", "run", "-p", path, "-r", "bp", "--results", str(lab.results), "--time-limit", "4s"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(interrupt, "process_began", lambda began: began)  # this process has run all tests before
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == TimeLimitReached.exit_code == 75
    assert "hebbbench: stopped after step" in capsys.readouterr().err
    (checkpoint,) = lab.checkpoints()
    assert checkpoint.suffix == ".pt"
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 75
    assert "going on from the checkpoint at step" in capsys.readouterr().out


def test_cells_done_before_the_limit_are_shown(lab, monkeypatch, capsys, clock):
    from hebbbench.training import grid

    run_cell = grid.run_cell

    def stopped(cell, *arguments, **options):
        if cell.seed == 1:
            raise TimeLimitReached("stopped here")
        return run_cell(cell, *arguments, **options)

    monkeypatch.setattr(grid, "run_cell", stopped)
    path = lab.protocol_file()
    arguments = ["hebbbench", "run", "-p", path, "-r", "random", "-s", "0-1", "--results", str(lab.results)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--time-limit", "1h"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    assert (left.value.code, err) == (75, "hebbbench: stopped here\n")
    assert f"Result: {Path(lab.results) / 'tiny' / 'random' / 'seed-0.json'}" in out
    assert store.load(lab.results / "tiny" / "random" / "seed-0.json").status == "ok"


def test_a_signal_under_a_limit_is_an_interruption(lab):
    asking = At(2, lambda: signal.raise_signal(signal.SIGTERM), "training")
    with pytest.raises(RunInterrupted) as stop:
        list(run_cells([lab.cell("bp")], lab.results, limited(lab, 900), asking))
    assert stop.value.exit_code == 130
