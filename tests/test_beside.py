"""Work side by side: order, threads, stops and errors; and that chunks of networks learn what they learn alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from hebbbench import registry
from hebbbench.cell import cells
from hebbbench.errors import HebbBenchError, RunInterrupted
from hebbbench.progress import Silent
from hebbbench.protocol import Protocol
from hebbbench.recipe import Recipe
from hebbbench.record import store
from hebbbench.training import together
from hebbbench.training.beside import Locked, side_by_side
from hebbbench.training.grid import run_cells
from hebbbench.training.interrupt import StopRequest
from hebbbench.training.run import Settings

PATIENCE = 20.0

CPU = torch.device("cpu")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def until_asked(request: StopRequest) -> str:
    end = time.monotonic() + PATIENCE
    while not request.asked():
        assert time.monotonic() < end, "nobody asked for a stop"
        time.sleep(0.001)
    raise request.stopped("where it was told to")


def test_pieces_work_at_the_same_time_on_their_share_and_give_in_order(two_threads):
    both, second_done = threading.Barrier(2, timeout=PATIENCE), threading.Event()

    def first(request: StopRequest) -> tuple[str, int]:
        both.wait()
        assert second_done.wait(PATIENCE)
        return "first", torch.get_num_threads()

    def second(request: StopRequest) -> tuple[str, int]:
        both.wait()
        second_done.set()
        return "second", torch.get_num_threads()

    assert list(side_by_side(iter([first, second]), 2, StopRequest(), CPU)) == [("first", 1), ("second", 1)]
    assert torch.get_num_threads() == 2


def test_one_piece_has_all_threads(two_threads):
    assert list(side_by_side(iter([lambda request: torch.get_num_threads()]), 1, StopRequest(), CPU)) == [2]


def test_what_a_piece_raises_stops_the_others_and_takes_no_more():
    def fails(request: StopRequest) -> str:
        raise ValueError("this one")

    taken = []

    def pieces() -> Iterator[Callable[[StopRequest], str]]:
        for piece in (until_asked, fails, until_asked):
            taken.append(piece)
            yield piece

    with pytest.raises(ValueError, match="this one"):
        list(side_by_side(pieces(), 2, StopRequest(), CPU))
    assert taken == [until_asked, fails]


def test_what_came_to_its_end_is_given_before_the_error():
    done = threading.Event()

    def fails(request: StopRequest) -> str:
        assert done.wait(PATIENCE)
        raise ValueError("this one")

    def ends(request: StopRequest) -> str:
        done.set()
        return "whole"

    given: list[str] = []
    with pytest.raises(ValueError, match="this one"):
        given.extend(side_by_side(iter([fails, ends]), 2, StopRequest(), CPU))
    assert given == ["whole"]


def test_an_error_between_pieces_lets_those_at_work_go_on():
    failed = threading.Event()

    def ends(request: StopRequest) -> str:
        assert failed.wait(PATIENCE)
        return "whole"

    def pieces() -> Iterator[Callable[[StopRequest], str]]:
        yield ends
        failed.set()
        raise HebbBenchError("no next one")

    given: list[str] = []
    with pytest.raises(HebbBenchError, match="no next one"):
        given.extend(side_by_side(pieces(), 2, StopRequest(), CPU))
    assert given == ["whole"]


def test_a_stop_reaches_every_piece():
    stop, both = StopRequest(), threading.Barrier(2, action=lambda: setattr(stop, "signalled", True))

    def piece(request: StopRequest) -> str:
        both.wait(PATIENCE)
        return until_asked(request)

    with pytest.raises(RunInterrupted, match="where it was told to"):
        list(side_by_side(iter([piece, piece]), 2, stop, CPU))


def test_no_step_is_lost_when_threads_tell_one_reporter():
    class Counting(Silent):
        total = 0

        def advance(self, steps: int = 1, note: str = "") -> None:
            before = self.total
            time.sleep(0)  # another thread's turn
            self.total = before + steps

    counting = Counting()
    shared = Locked(counting)

    def piece(request: StopRequest) -> None:
        for _ in range(300):
            shared.advance(2)

    list(side_by_side(iter([piece, piece]), 2, StopRequest(), CPU))
    assert counting.total == 1200


def planned(rule: str) -> list[Any]:
    plain = registry.protocol("sre-mlp").model_dump(mode="json", exclude={"axes", "published"})
    plain["training"] |= {"epochs": 1, "batch_size": 2000}
    protocol = Protocol.model_validate(plain | {"alignment": {"window": 4}, "axes": {}})
    return cells(protocol, [rule], [0, 1, 2], {}, Recipe(provenance="default"))


@pytest.mark.parametrize("rule", ["bp", "random_nn"])
def test_chunks_side_by_side_leave_the_bits_they_leave_one_after_the_other(rule, tmp_path, monkeypatch, two_threads):
    monkeypatch.setattr(together, "CHUNK", 1)
    beside = list(run_cells(planned(rule), tmp_path / "beside", Settings(), Silent()))
    torch.set_num_threads(1)
    after = list(run_cells(planned(rule), tmp_path / "after", Settings(), Silent()))
    assert [result.seed for result in beside] == [0, 1, 2]
    assert [result.weights for result in beside] == [result.weights for result in after]
    assert len({result.weights for result in beside}) == 3
    assert {result.environment.threads for result in (*beside, *after)} == {1}
    assert len(list(store.scan(tmp_path / "beside"))) == 3
