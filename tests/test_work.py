"""The arithmetic of a step is counted, and is what the layers' shapes say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from hebbbench import registry
from hebbbench.cell import cells
from hebbbench.protocol import Protocol
from hebbbench.training.learner import Learner
from hebbbench.training.work import Counter, ceiling, count

BATCH = 4


def learner(rule: str, protocol: str = "cifar10-deephebb", **options: Any) -> Learner:
    plain = registry.protocol(protocol).model_dump(mode="json")
    plain["architecture"]["options"].update(options)
    (cell,) = cells(Protocol.model_validate(plain), [rule], [0], {})
    return Learner(cell, (32, 32, 3), 10, torch.device("cpu"))


def products(own: Learner) -> list[int]:
    """2 B K D of each layer, the read-out last, from the shapes of a forward pass."""
    sizes = []

    def note(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        sizes.append(2 * output.numel() * (module.weight[0].numel()))

    handles = [m.register_forward_hook(note) for m in own.model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        own.model.eval()(torch.zeros(BATCH, 3, 32, 32))
    for handle in handles:
        handle.remove()
    return sizes


@pytest.mark.parametrize(
    ("rule", "outer", "trained_end_to_end"),
    [("bp", 0, True), ("sign", 0, True), ("ghl", 1, True), ("softhebb", 1, False), ("hpca", 1, False)],
)
def test_a_step_costs_what_its_equation_needs(rule, outer, trained_end_to_end):
    own = learner(rule, widths=[8, 16, 32])
    layers = products(own)
    work = count(own, torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH))
    *body, head = layers
    assert work.forward == sum(layers)
    if trained_end_to_end:
        expected = 3 * sum(layers) - layers[0] + outer * sum(body)
    else:
        expected = (1 + outer) * sum(body)
    small = sum(2 * 2 * width**2 * 1024 * BATCH for width in (8, 16, 32)) if rule == "hpca" else 0
    assert expected <= work.step <= expected + small
    assert head > 0


def test_deephebb_costs_what_was_published():
    """0.865 G operations an image forward, 2.98 times that for backprop: the unit of the speed goals."""
    with torch.device("meta"):
        own = registry.architecture("deephebb")(input_shape=(3, 32, 32), classes=10)
        with Counter() as forward:
            own.eval()(torch.empty(1, 3, 32, 32))
    assert forward.operations == pytest.approx(0.865e9, rel=1e-3)


def test_counting_changes_no_bit():
    one, two = (learner("ghl", widths=[8, 16, 32]) for _ in range(2))
    x, labels = torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH)
    one.step(x, labels, 0, 0.0)
    count(two, x, labels)
    two.model.train()
    assert one.digest() == two.digest()


def test_the_ceiling_is_a_rate():
    assert ceiling(torch.device("cpu"), torch.float32) > 1e9
