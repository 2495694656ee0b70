"""The way of an outer product is timed once a shape, kept for the machine, and never chosen by noise."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch

from hebbbench.plasticity import routes
from hebbbench.plasticity.routes import LEAST, USUAL, Routes
from hebbbench.training.work import Counter as Operations

CPU = torch.device("cpu")
LIKE = torch.zeros(1, dtype=torch.bfloat16)
KEY = "(8, 4, 3, 3) on 5×5 in torch.bfloat16"


class Ways:
    """Ways that take given times on a clock of their own, and count how often they were gone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **seconds: float | type[Exception]) -> None:
        self.now = 0.0
        self.gone: Counter[str] = Counter()
        self.seconds = seconds
        monkeypatch.setattr(routes.time, "perf_counter", lambda: self.now)

    def __call__(self) -> dict:
        def way(name):
            def product():
                self.gone[name] += 1
                if not isinstance(self.seconds[name], float):
                    raise self.seconds[name]("no memory")
                self.now += self.seconds[name]
                return name

            return product

        return {name: way(name) for name in self.seconds}


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"library": 1.0, "patches": 0.5, "shifts": 0.7}, "patches"),
        ({"library": 1.0, "patches": 0.9, "shifts": 0.85}, USUAL),
        ({"library": 1.0, "patches": torch.OutOfMemoryError, "shifts": 0.7}, "shifts"),
        ({"library": 1.0, "patches": MemoryError, "shifts": 3.0}, USUAL),
    ],
)
def test_the_fastest_is_taken_and_timed_once(monkeypatch, seconds, chosen):
    ways, own = Ways(monkeypatch, **seconds), Routes()
    assert own.take(KEY, LEAST, ways(), LIKE) == chosen
    before = ways.gone.copy()
    assert own.take(KEY, LEAST, ways(), LIKE) == chosen
    assert ways.gone - before == {chosen: 1}
    assert own.unusual == ({} if chosen == USUAL else {KEY: chosen})


@pytest.mark.parametrize(
    ("work", "like"), [(LEAST - 1, LIKE), (LEAST, torch.zeros(1)), (LEAST, torch.zeros(1, dtype=torch.float64))]
)
def test_what_is_small_or_float32_on_a_cpu_is_not_timed(monkeypatch, work, like):
    ways, own = Ways(monkeypatch, library=1.0, patches=0.1), Routes()
    assert own.take(KEY, work, ways(), like) == USUAL
    assert ways.gone == {USUAL: 1}
    assert not own.chosen


def test_nothing_is_timed_while_operations_are_counted(monkeypatch):
    ways, own = Ways(monkeypatch, library=1.0, patches=0.1), Routes()
    with Operations():
        assert own.take(KEY, LEAST, ways(), LIKE) == USUAL
    assert not own.chosen
    assert own.take(KEY, LEAST, ways(), LIKE) == "patches"


def test_a_choice_is_kept_for_the_next_process(monkeypatch, tmp_path):
    first, second = Routes(), Routes()
    first.keep(tmp_path, CPU)
    second.keep(tmp_path, CPU)
    first.take(KEY, LEAST, Ways(monkeypatch, library=1.0, patches=0.1)(), LIKE)
    # The second has timed the other way round meanwhile: what was written first stands.
    assert second.take(KEY, LEAST, Ways(monkeypatch, library=0.1, patches=1.0)(), LIKE) == "patches"
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text()) == {KEY: "patches"}
    path.write_text("{ torn")
    third = Routes()
    third.keep(tmp_path, CPU)
    assert not third.chosen


def test_choices_are_of_one_number_of_threads(tmp_path, monkeypatch):
    own = Routes()
    own.keep(tmp_path, CPU)
    own.take(KEY, LEAST, Ways(monkeypatch, library=1.0, patches=0.1)(), LIKE)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    own.keep(tmp_path, CPU)
    assert not own.chosen


def test_a_folder_that_cannot_be_written_costs_no_more_than_a_measurement(monkeypatch, tmp_path):
    (tmp_path / "routes").write_text("in the way")
    own = Routes()
    own.keep(tmp_path / "routes", CPU)
    assert own.take(KEY, LEAST, Ways(monkeypatch, library=1.0, patches=0.1)(), LIKE) == "patches"


def test_a_result_says_which_products_went_another_way(lab, monkeypatch):
    monkeypatch.setattr(routes, "LEAST", 0)
    monkeypatch.setattr(routes, "_fastest", lambda ways, device: "shifts")
    protocol = lab.protocol("digits-deephebb", {"precision": "bfloat16"})
    cell = lab.cell("softhebb", protocol, 0, optimizer={"lr": 0.01}, init={"law": "normal", "radius": 25.0})
    result = lab.run(cell)
    assert result.status == "ok", result.reason
    assert result.environment.determinism_probe
    assert set(result.environment.routes.values()) == {"shifts"}
    assert len(result.environment.routes) == len(result.model.plastic)
    assert "routes" not in lab.run(lab.cell("bp", lab.protocol("digits-mlp"))).environment.model_dump()
