"""A rule's equation runs in the forward pass as far as it needs no gradient, with the same bits as if it had waited."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hebbbench import Pre, Rule, hebb, registry
from hebbbench.plasticity.later import Later, NeededNow
from hebbbench.plasticity.layer import PlasticLayer

EARLY = [
    name
    for name in registry.rule_names()
    if "grad" in (signals := registry.rule(name).signals) and "post" in signals and "state" not in signals
]


class Plain(Rule):
    def delta(self, pre: Pre, post: Tensor, grad: Tensor) -> Tensor:
        return hebb(post, pre).abs() * -grad.sign()


class Shaped(Rule):
    def delta(self, pre: Pre, post: Tensor, grad: Tensor) -> Tensor:
        return hebb(post, pre).abs().view(grad.shape) * -grad.sign()


class Branching(Rule):
    def delta(self, pre: Pre, post: Tensor, grad: Tensor) -> Tensor:
        return hebb(post, pre).abs() * (-grad.sign() if (grad != 0).any() else 0)


class Changing(Rule):
    def delta(self, pre: Pre, post: Tensor, grad: Tensor) -> Tensor:
        return hebb(post, pre).abs().mul_(grad.sign().neg_())


class Renamed(Rule):
    def delta(self, pre: Pre, post: Tensor, grad: Tensor) -> Tensor:
        direction = grad * 1.0
        same = direction
        same += hebb(post, pre)
        return -direction


class Careful(Rule):
    def delta(self, pre: Pre, post: Tensor, grad: Tensor) -> Tensor:
        assert isinstance(grad, Tensor)
        return hebb(post, pre).abs() * -grad.sign()


def update(rule: Rule, early: bool) -> tuple[Tensor, bool]:
    """What a linear layer's rule leaves in `grad`, and whether activity was let go before the gradient came."""
    torch.manual_seed(0)
    module = torch.nn.Linear(6, 4, bias=False)
    layer = PlasticLayer("fc", module, rule)
    x, gradient = torch.randn(5, 6), torch.randn(4, 6)
    layer.observe(x, module(x))
    if early:
        layer.begin()
    let_go = layer._post is None
    layer.learn(grad=gradient)
    return module.weight.grad, let_go


@pytest.mark.parametrize("name", EARLY)
def test_rules_of_the_registry_begin_early_and_end_alike(lab, monkeypatch, name):
    assert "ghl" in EARLY
    protocol = lab.protocol("digits-deephebb")
    early = lab.run(lab.cell(name, protocol, 0, epochs=1))
    held = []
    monkeypatch.setattr(PlasticLayer, "begin", lambda layer, **outside: held.append(layer._post is not None))
    late = lab.run(lab.cell(name, protocol, 0, epochs=1), force=True)
    assert all(held)
    assert early.status == late.status == "ok"
    assert early.weights == late.weights


@pytest.mark.parametrize(
    ("kind", "goes"),
    [(Plain, True), (Shaped, False), (Branching, False), (Changing, False), (Careful, False), (Renamed, False)],
)
def test_a_rule_that_needs_more_of_the_gradient_waits_for_it(kind, goes):
    now, let_go = update(kind(), early=True)
    assert let_go == goes
    assert torch.equal(now, update(kind(), early=False)[0])


def test_what_was_noted_down_is_done_once():
    calls = []

    def counted(tensor: Tensor) -> Tensor:
        calls.append(tensor)
        return tensor + 1

    once = Later(counted, Later())
    a = torch.arange(4.0)
    both = torch.where(once > 2, a * once, torch.stack([once / 2, a])[0] - once.abs().clamp(min=1))
    assert isinstance(both, Later)
    g = torch.tensor([0.0, 1.0, 2.0, 3.0])
    expected = torch.where(g + 1 > 2, a * (g + 1), (g + 1) / 2 - (g + 1).clamp(min=1))
    assert torch.equal(both.given(g), expected)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "use",
    [
        lambda g: g.shape,
        lambda g: bool(g),
        lambda g: g.add_(1),
        lambda g: torch.ones(3).mul_(g),
        lambda g: torch.add(torch.ones(3), g, out=torch.ones(3)),
        lambda g: g.no_such_method(),
    ],
)
def test_more_than_arithmetic_is_refused(use):
    with pytest.raises((NeededNow, TypeError)):
        use(Later())


def test_a_rule_with_a_state_is_asked_once():
    class Remembering(Rule):
        def init(self, weight: Tensor) -> dict[str, Tensor]:
            return {"count": torch.zeros(())}

        def delta(self, pre: Pre, post: Tensor, grad: Tensor, state: dict[str, Tensor]) -> Tensor:
            state["count"] += 1
            return hebb(post, pre).abs() * -grad.sign()

    _, let_go = update(Remembering(), early=True)
    assert not let_go
