"""The arithmetic of a step is counted, and is what the layers' shapes say."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from hebbbench import costs, registry
from hebbbench.cell import cells
from hebbbench.costs import cost_page
from hebbbench.errors import HebbBenchError, RuleError
from hebbbench.protocol import Protocol
from hebbbench.training.counter import ELSEWHERE, Counter
from hebbbench.training.learner import Learner
from hebbbench.training.outline import activity
from hebbbench.training.work import ceiling, count

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


def parts(own: Learner, kind: str) -> dict[str, int]:
    """Operations of one step for that, by layer."""
    work = count(own, torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH))
    return {layer.name: getattr(layer, kind).operations for layer in work.layers}


@pytest.mark.parametrize(
    ("rule", "backward", "outer"),
    [("bp", [1, 2, 2, 2], 0), ("ghl", [1, 2, 2, 2], 1), ("softhebb", [0, 0, 0, 0], 1), ("dfa", [1, 2, 2, 2], 0)],
)
def test_each_layer_has_its_own_share(rule, backward, outer):
    """2 B K D: once forward, twice backward (once for the first layer), once for a Hebbian outer product."""
    layers = products(learner(rule, widths=[8, 16, 32]))
    whole = parts(learner(rule, widths=[8, 16, 32]), "forward")
    assert list(whole) == ["body.conv1", "body.conv2", "body.conv3", "head.linear"]
    reached = layers if rule != "softhebb" else [*layers[:-1], 0]
    assert list(whole.values()) == reached
    got = list(parts(learner(rule, widths=[8, 16, 32]), "backward").values())
    assert got == [times * one for times, one in zip(backward, layers, strict=True)]
    learned = list(parts(learner(rule, widths=[8, 16, 32]), "rule").values())
    assert learned == [outer * one for one in layers[:-1]] + [0]


def test_feedback_paths_are_counted_between_the_layers():
    """`fa` computes what it sends back itself: nothing of that is backpropagation through the layer."""
    own = learner("fa", widths=[8, 16, 32])
    work = count(own, torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH))
    inside = sum(getattr(layer, kind).operations for layer in work.layers for kind in ("forward", "backward", "rule"))
    assert 0 < work.step - inside == work.step - work.forward - sum(products(own))


def test_places_are_left_again_whatever_ends_a_pass():
    """`softhebb` ends its pass inside a hook, by an exception."""
    for own in (learner("softhebb", widths=[8, 16, 32]), learner("bp", widths=[8, 16, 32])):
        counter = Counter()
        with counter, counter.layer_by_layer(own.model, own.plasticity.layers):
            own.step(torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH), 0, 0.0)
        assert counter._places == [ELSEWHERE]
        assert "learn" not in vars(own.plasticity.layers[0])


def test_what_is_computed_anew_is_counted_again():
    (cell,) = cells(registry.protocol("cifar10-resnet"), ["ghl"], [0], {"depth": 20})
    x, labels = torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH)
    once, twice = (
        count(Learner(cell, (32, 32, 3), 10, torch.device("cpu"), recompute=again), x, labels)
        for again in (False, True)
    )
    body = [(a, b) for a, b in zip(once.layers, twice.layers, strict=True) if a.name.startswith("body")]
    assert all(b.forward.operations in (a.forward.operations, 2 * a.forward.operations) for a, b in body)
    assert sum(b.forward.operations for _, b in body) > 1.9 * sum(a.forward.operations for a, _ in body)
    assert [a.rule for a, _ in body] == [b.rule for _, b in body]
    assert [a.backward.operations for a, _ in body] == [b.backward.operations for _, b in body]


def test_bytes_are_what_operators_read_and_write():
    layer, x = nn.Linear(7, 3), torch.randn(5, 7)
    with torch.no_grad(), Counter() as counter:
        layer(x)
    assert counter.total.bytes == 4 * (5 * 7 + 3 * 7 + 3 + 5 * 3)
    with Counter() as counter:
        x.t().reshape(7, 5)[1:].detach()  # nothing moves
    assert counter.total.bytes == 0
    with Counter() as counter:
        x.add_(1)
        x[:1].expand(100, 7).sum()
    assert counter.total.bytes == 4 * (2 * 35 + 7 + 1)


@pytest.mark.parametrize("rule", ["bp", "ghl", "oja"])
def test_the_profiler_counts_the_same_products(rule):
    (cell,) = cells(registry.protocol("digits-mlp"), [rule], [0], {})
    x, labels = torch.randn(32, 64), torch.arange(32) % 10
    counted = count(Learner(cell, (8, 8, 1), 10, torch.device("cpu")), x, labels)
    own = Learner(cell, (8, 8, 1), 10, torch.device("cpu"))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], with_flops=True) as profile:
        own.step(x, labels, 0, 0.0)
    products = {"aten::mm", "aten::addmm", "aten::bmm"}  # it gives a figure to elementwise operators, too
    assert counted.step == sum(event.flops for event in profile.key_averages() if event.key in products)


def test_the_page_of_one_rule_adds_up():
    page = cost_page("cifar10-small", ["bp"], [], 2, "cpu")
    assert page.startswith("cifar10-small bp: one step of 2 samples takes 2.9")
    assert "GFLOP/s in float32" in page
    lines = [
        line.rsplit(maxsplit=5) for line in page.splitlines() if line.startswith(("body", "head", "  ", "between"))
    ]
    (whole,) = [line.rsplit(maxsplit=5) for line in page.splitlines() if line.startswith("whole")]
    assert len(lines) == 4 + 4 + 3 + 1  # each layer's two passes, three rules, and what is between
    for column in (1, 2):
        assert sum(float(line[column]) for line in lines) == pytest.approx(float(whole[column]), rel=0.02)


def test_the_page_of_several_rules_has_a_line_for_each():
    page = cost_page("sre-mlp", ["bp", "random_nn"], ["decay=0.0"], None, "cpu")
    lines = [line.split()[:4] for line in page.splitlines() if line.startswith(("bp", "random_nn"))]
    assert [line[0] for line in lines] == ["bp", "random_nn", "bp"]
    assert [line[2] for line in lines] == ["optimizer=sgd", "optimizer=sgd", "optimizer=adam"]


@pytest.mark.parametrize(
    ("delta", "layer", "said"),
    [
        ("post: return y", "fc1", "NameError: name 'y' is not defined"),
        ("post, pre: return post @ pre.rows", "fc1", "RuntimeError: mat1 and mat2 shapes cannot be multiplied .*"),
        ("grad: return grad @ grad", "fc2", "RuntimeError: mat1 and mat2 shapes cannot be multiplied .*"),
    ],
)
def test_the_cost_of_a_rule_that_raises_is_one_line(lab, delta, layer, said):
    path = lab.rule("mine", delta)
    with pytest.raises(RuleError) as told:
        cost_page("digits-mlp", [path], [], None, "cpu")
    line = rf"rule 'mine' at layer 'body\.{layer}': {said} \(mine\.py, line 9\)\. See what else: hebbbench check {path}"
    assert re.fullmatch(line, str(told.value))


def test_an_error_that_no_rule_has_a_part_in_stays_what_it_is(monkeypatch):
    def fails(*arguments):
        raise ValueError("a defect of the harness")

    monkeypatch.setattr(costs, "count", fails)
    with pytest.raises(ValueError, match="a defect of the harness"):
        cost_page("digits-mlp", ["bp"], [], None, "cpu")


def test_cost_asks_for_what_there_is():
    with pytest.raises(HebbBenchError, match="has no axis 'depth'"):
        cost_page("digits-mlp", ["bp"], ["depth=3"], None, "cpu")


@pytest.mark.parametrize("batch", [10**11, 10**30])
def test_a_batch_that_no_memory_holds_is_refused_before_any_of_it_is_allocated(monkeypatch, batch):
    monkeypatch.setattr(costs, "blank_input", lambda *_: pytest.fail("allocated"))
    with pytest.raises(HebbBenchError, match=rf"a batch of {batch} samples needs \d+ GB .* Give a smaller --batch"):
        cost_page("digits-mlp", ["bp", "random"], [], batch, "cpu")


def test_memory_that_runs_out_in_a_step_is_told_by_the_batch(monkeypatch):
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(costs, "count", full)
    with pytest.raises(HebbBenchError, match=r"seed 0: cpu has too little memory for a batch of 4 samples\. Give a"):
        cost_page("digits-mlp", ["bp"], [], 4, "cpu")


def test_the_least_that_a_sample_takes_is_its_input_and_its_widest_layer():
    options = registry.protocol("digits-mlp").architecture.options
    assert activity("mlp", options, "digits") == 64 + max(options["widths"])
