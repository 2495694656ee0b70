"""Nothing inside a step makes the host wait for the device: no number is read back, no shape depends on one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hebbbench import registry
from hebbbench.cell import cells
from hebbbench.training.learner import Learner

READS_BACK = {
    "aten::_local_scalar_dense",  # item(), tolist(), int(), float() and bool() of a tensor
    "aten::equal",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
}

WAITING = {
    "ghl_shuffled": "its draws are the same on every device, so their counter is read and they are made on the host",
    "ghl_matched": "as ghl_shuffled",
    "ghl_reward": "as ghl_shuffled",
    "pepita": "as ghl_shuffled",
    "ff": "as ghl_shuffled",
    "dtp": "as ghl_shuffled",
    "ib": "how many classes there are is read from the labels",
}
"""Rules that wait, and what for."""


class Waits(TorchDispatchMode):
    """Counts the operations whose result the host must wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name in READS_BACK or (name.startswith("aten::index") and _masked(args)):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def _masked(args: Any) -> bool:
    """Whether an index is a mask, so that the size of the result is among the numbers."""
    indices = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else []
    return any(isinstance(index, Tensor) and index.dtype == torch.bool for index in indices)


def waits_in_a_step(rule: str, protocol: str) -> Counter[str]:
    (cell,) = cells(registry.protocol(protocol), [rule], [0], {})
    learner = Learner(cell, (8, 8, 1), 10, torch.device("cpu"))
    x, labels = torch.randn(8, 1, 8, 8), torch.arange(8)
    x = x if learner.model.layout == "image" else x.flatten(1)
    learner.step(x, labels, 0, 0.0)
    with Waits() as waits:
        learner.step(x, labels, 1, 0.1)
    return waits.found


@pytest.mark.parametrize("rule", registry.rule_names())
@pytest.mark.parametrize("protocol", ["digits-mlp", "digits-deephebb"])
def test_a_step_waits_for_nothing(rule, protocol):
    found = waits_in_a_step(rule, protocol)
    assert bool(found) == (rule in WAITING), found


def test_what_waits_is_seen():
    numbers = torch.arange(4)
    with Waits() as waits:
        numbers.sum().item()
        numbers[numbers > 1]
        torch.equal(numbers, numbers)
        numbers[[0, 1]]
    assert waits.found == {"aten::_local_scalar_dense": 1, "aten::index": 1, "aten::equal": 1}
