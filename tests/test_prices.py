"""What a cell may take is told from results with as much training, else from work counted on shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch

from hebbbench import outlines, registry
from hebbbench.cell import Cell, cells
from hebbbench.data import dataset_spec
from hebbbench.outlines import Outlines
from hebbbench.prices import Prices
from hebbbench.record.schema import Result
from hebbbench.training.counter import Counter
from hebbbench.training.network import blank_input, build_model
from hebbbench.training.outline import count


@pytest.fixture
def trained(lab) -> Result:
    return lab.run(lab.cell("bp", epochs=2))


@pytest.fixture
def price(lab) -> Callable[[Sequence[Result], Cell], float | None]:
    known = {name: registry.protocol(name) for name in registry.protocol_names()} | {"digits-mlp": lab.protocol()}
    return lambda results, cell: Prices(results, known, Outlines(lab.cache)).seconds(cell)


def like(result: Result, **cost: Any) -> Result:
    return result.model_copy(update={"cost": result.cost.model_copy(update=cost)})


def test_the_same_rule_with_as_many_epochs_tells_by_itself(lab, price, trained):
    several = [like(trained, wall_seconds=seconds) for seconds in (2.0, 40.0, 3.0)]
    assert price(several, lab.cell("bp", epochs=2, seed=7)) == 3.0


def test_an_untrained_cell_prices_no_trained_one(lab, price):
    untrained = lab.run(lab.cell("random", epochs=0))
    assert price([untrained], lab.cell("random", epochs=0, seed=1)) == untrained.cost.wall_seconds
    assert price([untrained], lab.cell("random", epochs=2)) is None
    assert price([untrained], lab.cell("ghl", epochs=2)) is None


def test_other_epochs_take_their_share(lab, price, trained):
    cost = trained.cost
    expected = 15 * cost.train_seconds + cost.probe_seconds
    assert price([like(trained, wall_seconds=1e6)], lab.cell("bp", epochs=30)) == pytest.approx(expected, rel=0.3)


def test_the_rule_that_takes_more_passes_is_dearer(lab, price, trained):
    assert trained.work is not None
    more = trained.work.model_copy(update={"step_flops": 10 * trained.work.forward_flops})
    slow = trained.model_copy(update={"rule": trained.rule.model_copy(update={"name": "pc"}), "work": more})
    same = lab.cell("bp", epochs=4), lab.cell("pc", epochs=4)
    few, many = (price([trained, slow], cell) for cell in same)
    assert many > few


def test_a_deeper_network_is_dearer_trained_or_not(price, trained):
    protocol = registry.protocol("cifar10-resnet")
    for rule in ("random", "ghl"):
        prices = [price([trained], cell) for cell in cells(protocol, [rule], [0], {})]
        assert len(prices) == len(protocol.axes["depth"].values)
        assert all(None not in pair and pair[0] < pair[1] for pair in pairwise(prices))


def test_results_from_the_kind_of_device_that_is_here_count_alone(lab, price, trained, monkeypatch):
    elsewhere = trained.environment.model_copy(update={"device": "cuda:0"})
    far = like(trained, wall_seconds=1e6).model_copy(update={"environment": elsewhere})
    cell = lab.cell("bp", epochs=2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert price([trained, far], cell) == trained.cost.wall_seconds
    assert price([far], cell) == 1e6
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert price([trained, far], cell) == 1e6


def test_what_cannot_be_built_has_no_price(lab, price, trained):
    cell = lab.cell("bp", lab.protocol(changes={"name": "other", "architecture.options.widths": [-1]}), epochs=2)
    assert price([trained], cell) is None


@pytest.mark.parametrize(
    "name", ["digits-mlp", "digits-deephebb", "cifar10-fasthebb", "cifar10-resnet", "sre-transformer"]
)
def test_an_outline_has_all_products_of_a_forward_pass(name):
    protocol = registry.protocol(name)
    spec, network = dataset_spec(protocol.data.dataset), protocol.architecture
    model = build_model(network.name, network.options, spec.shape, spec.classes, outline=True).eval()
    x = blank_input(model, spec.shape, 7, "meta")
    with torch.no_grad(), Counter() as whole:
        model(x)
    assert count(network.name, network.options, spec.name) == (whole.operations // 7, model.body(x)[0].numel())


def test_an_outline_is_counted_once(lab, monkeypatch):
    asked = "mlp", {"widths": [3]}, "digits"
    first = Outlines(lab.cache)
    found = first.of(*asked)
    first.keep()
    monkeypatch.setattr(outlines, "_counted", lambda key: None)
    assert Outlines(lab.cache).of(*asked) == found == (2 * (64 * 3 + 3 * 10), 3)
    (kept,) = lab.cache.glob("outlines-*.json")
    for broken in ("", "[]", '{"a": 3}'):
        kept.write_text(broken)
        assert Outlines(lab.cache).of(*asked) is None
