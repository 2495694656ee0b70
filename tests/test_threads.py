"""Small networks compute on one thread, unless the user has said how many; what was recorded is what was used."""

from __future__ import annotations

import pytest
import torch

from hebbbench import registry
from hebbbench.cell import cells
from hebbbench.training.threads import SAID, fitting_threads, light

CPU = torch.device("cpu")


@pytest.fixture
def two(monkeypatch):
    """Two threads, of which the user has said nothing."""
    monkeypatch.delenv(SAID, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def cell_of(protocol: str, rule: str = "bp"):
    found = registry.protocol(protocol)
    axes = {name: axis.values[0] for name, axis in found.axes.items()}
    (cell,) = cells(found, [rule], [0], axes)
    return cell


@pytest.mark.parametrize(
    ("protocol", "small"),
    [
        ("digits-mlp", True),
        ("digits-deephebb", True),
        ("mnist-mlp", True),
        ("cifar10-small", False),
        ("cifar10-deephebb", False),
        ("sre-transformer", False),
        ("imagenet-resnet50", False),
    ],
)
def test_which_cells_are_light(protocol, small):
    assert light(cell_of(protocol)) == small


def test_a_light_cell_has_one_thread_and_a_heavy_one_all(two):
    with fitting_threads(cell_of("digits-mlp"), CPU):
        assert torch.get_num_threads() == 1
    with fitting_threads(cell_of("cifar10-deephebb"), CPU):
        assert torch.get_num_threads() == 2
    with fitting_threads(cell_of("digits-mlp"), torch.device("cuda")):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 2


def test_what_the_user_says_stands(two, monkeypatch):
    monkeypatch.setenv(SAID, "2")
    with fitting_threads(cell_of("digits-mlp"), CPU):
        assert torch.get_num_threads() == 2


def test_the_result_says_how_many_and_the_next_cell_has_its_own(two, lab, monkeypatch):
    assert lab.run(lab.cell("bp", lab.protocol("digits-mlp"), 0, epochs=1)).environment.threads == 1
    assert torch.get_num_threads() == 2
    monkeypatch.setenv(SAID, "2")
    assert lab.run(lab.cell("bp", lab.protocol("digits-mlp"), 1, epochs=1)).environment.threads == 2
