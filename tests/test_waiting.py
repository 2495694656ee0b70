"""Nothing inside a step makes the host wait for the device: no number is read back, no shape depends on one."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from hebbbench import registry
from hebbbench.cell import cells
from hebbbench.training.learner import Learner
from hebbbench.training.unrepeatable import Unrepeatable

WAITING = {
    "ghl_shuffled": "its draws are the same on every device, so their counter is read and they are made on the host",
    "ghl_matched": "as ghl_shuffled",
    "ghl_reward": "as ghl_shuffled",
    "pepita": "as ghl_shuffled",
    "ff": "as ghl_shuffled",
    "dtp": "as ghl_shuffled",
    "drtp": "as ghl_shuffled",
    "local_errors": "as ghl_shuffled",
    "node_perturbation": "as ghl_shuffled",
    "forward_gradient": "as ghl_shuffled",
}
"""Rules that wait, and what for."""


def waits_in_a_step(rule: str, protocol: str) -> Counter[str]:
    (cell,) = cells(registry.protocol(protocol), [rule], [0], {})
    learner = Learner(cell, (8, 8, 1), 10, torch.device("cpu"))
    x, labels = torch.randn(8, 1, 8, 8), torch.arange(8)
    x = x if learner.model.layout == "image" else x.flatten(1)
    learner.step(x, labels, 0, 0.0)
    with Unrepeatable() as waits:
        learner.step(x, labels, 1, 0.1)
    return waits.reads


@pytest.mark.parametrize("rule", registry.rule_names())
@pytest.mark.parametrize("protocol", ["digits-mlp", "digits-deephebb"])
def test_a_step_waits_for_nothing(rule, protocol):
    found = waits_in_a_step(rule, protocol)
    assert bool(found) == (rule in WAITING), found


def test_what_is_copied_from_another_device_is_seen():
    with Unrepeatable() as waits:
        torch.ones(3).to("meta")
        torch.empty(3, device="meta").copy_(torch.ones(3))
        torch.ones(3).to(torch.float64)
    assert waits.reads == {"aten::_to_copy": 1, "aten::copy_": 1}


def test_what_waits_is_seen():
    numbers = torch.arange(4)
    with Unrepeatable() as waits:
        numbers.sum().item()
        numbers[numbers > 1]
        torch.equal(numbers, numbers)
        numbers[[0, 1]]
    assert waits.reads == {"aten::_local_scalar_dense": 1, "aten::index": 1, "aten::equal": 1}
