"""A rule that is shown its layer's potential in pieces finds the bits that it finds in the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from hebbbench import Pre, Rule, decay, hebb, layer_max, losers_flipped, registry, soft_wta
from hebbbench.plasticity import pieces
from hebbbench.plasticity.later import Later
from hebbbench.plasticity.layer import PlasticLayer
from hebbbench.plasticity.pieces import NeededWhole, Rows, potential, rowwise, slices
from hebbbench.plasticity.signals import pre_of

EARLY = [
    name
    for name in registry.rule_names()
    if "grad" in (signals := registry.rule(name).signals) and "post" in signals and "state" not in signals
]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Several pieces, the last one smaller."""
    monkeypatch.setattr(pieces, "PIECE", 3 * 64)


def linear() -> tuple[nn.Linear, Tensor, Tensor]:
    """A layer with a bias, its input, and its output in bfloat16."""
    torch.manual_seed(0)
    layer, x = nn.Linear(6, 48), torch.randn(20, 6)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return layer, x, layer(x)


def convolution() -> tuple[nn.Conv2d, Tensor, Tensor]:
    torch.manual_seed(1)
    layer = nn.Conv2d(3, 32, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 5, 4).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return layer, x, layer(x)


LAYERS = [linear, convolution]


def written(output: Tensor, layer: nn.Linear | nn.Conv2d) -> Tensor:
    """u as rows, in float32, without the bias."""
    u = output.float()
    u = u.permute(0, 2, 3, 1).reshape(-1, u.shape[1]) if isinstance(layer, nn.Conv2d) else u
    return u if layer.bias is None else u - layer.bias.detach()


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize(
    "equation",
    [
        lambda u: u * u,
        lambda u: soft_wta(u, 0.7),
        lambda u: soft_wta(u, 1.0) * u,
        lambda u: losers_flipped(soft_wta(u, 1.0), u),
        lambda u: abs(1 - u / 3 + 2 * (-u)) - 0.5,
    ],
)
def test_pieces_are_the_whole(case, equation):
    layer, x, output = case()
    u, post = written(output, layer), potential(output, layer)
    y, later = equation(u), equation(post)
    assert isinstance(later, Rows)
    assert later.shape == y.shape
    assert len(list(slices(later.shape))) > 1
    assert torch.equal(later.whole(), y)
    assert torch.equal(later.to(torch.bfloat16), y.to(torch.bfloat16))
    assert torch.equal(later.mean(0), y.mean(0))
    pre, weight = pre_of(x, output, layer), layer.weight.detach().flatten(1)
    pairs = [(hebb(later, pre), hebb(y, pre)), (decay(later, weight), decay(y, weight))]
    pairs.append((pairs[0][0] - pairs[1][0], pairs[0][1] - pairs[1][1]))
    pairs.append((-layer_max(pairs[2][0]).abs(), -layer_max(pairs[2][1]).abs()))
    for term, expected in pairs:
        assert isinstance(term, Rows)
        assert term.waits
        assert len(list(slices(term.shape))) > 1
        for _ in range(2):
            assert torch.equal(term.whole(), expected)


def in_pieces(numbers: Tensor) -> Rows:
    return Rows(numbers.shape, numbers.dtype, numbers.device, lambda rows, done: numbers[rows], waits=True)


def test_the_extremes_of_pieces_are_those_of_the_whole():
    numbers = torch.randn(48, 6)
    assert in_pieces(numbers).aminmax() == numbers.aminmax()
    numbers[30, 2] = torch.nan
    assert all(extreme.isnan() for extreme in in_pieces(numbers).aminmax())


@pytest.mark.parametrize(
    ("equation", "pieces_of_it"),
    [
        (lambda h, g: h.abs() * -g.sign(), 2),
        (lambda h, g: g * 2 - h * g, 2),
        (lambda h, g: h * g.abs().max(), 1),
        (lambda h, g: torch.where(g > 0, h, 0 * h), 1),
    ],
)
def test_what_waits_for_the_gradient_is_laid_on_it_in_pieces_where_that_is_the_same(equation, pieces_of_it):
    h, g = torch.randn(48, 6), torch.randn(48, 6)
    calls = []

    class Counted(Rows):
        def whole(self, dtype: Any = None) -> Tensor:
            calls.append("whole")
            return super().whole(dtype)

    def make(rows: slice, done: Any) -> Tensor:
        calls.append("piece")
        return h[rows]

    later = equation(Counted(h.shape, h.dtype, h.device, make, waits=True), Later())
    assert isinstance(later, Later)
    assert torch.equal(later.given(g), equation(h, g))
    assert ("whole" in calls) == (pieces_of_it == 1)


def test_a_function_is_called_once_for_a_piece_however_often_it_is_used():
    layer, _, output = linear()
    rows = []

    @rowwise
    def counted(y: Tensor) -> Tensor:
        rows.append(len(y))
        return y

    y: Any = counted(potential(output, layer))  # type: ignore[arg-type]
    (y * y - y).mean(0)
    assert rows == [4] * 5


@pytest.mark.parametrize(
    "use",
    [
        lambda u: u.tanh(),
        lambda u: u + torch.ones(48),
        lambda u: torch.ones(48) * u,
        lambda u: torch.relu(u),
        lambda u: u.mean(1),
        lambda u: u.detach(),
        lambda u: bool(u),
        lambda u: u == u,
        lambda u: u * u.to(torch.float32),
        lambda u: soft_wta(post=u, temperature=1.0),
    ],
)
def test_what_cannot_be_done_to_each_row_is_refused(use):
    layer, _, output = linear()
    with pytest.raises(NeededWhole):
        use(potential(output, layer))


class Curved(Rule):
    def delta(self, pre: Pre, post: Tensor, grad: Tensor) -> Tensor:
        return hebb(post.tanh(), pre).abs() * -grad.sign()


class Compared(Rule):
    def delta(self, pre: Pre, post: Tensor, grad: Tensor) -> Tensor:
        return hebb((post > 0).to(post.dtype), pre) * -grad


class Scaled(Rule):
    def delta(self, pre: Pre, post: Tensor, grad: Tensor) -> Tensor:
        return -hebb(grad.abs().max() * post, pre)


class Mistaken(Rule):
    def delta(self, pre: Pre, post: Tensor, grad: Tensor) -> Tensor:
        raise ZeroDivisionError("the author's own")


def update(rule: Rule, case: Any, in_pieces: bool) -> tuple[Tensor, PlasticLayer]:
    """What a layer with products in bfloat16 learns, and the layer."""
    module, x, output = case()
    layer = PlasticLayer("layer", module, rule)
    layer._in_pieces = layer._in_pieces and in_pieces
    layer.observe(x, output)
    layer.begin(labels=torch.zeros(len(x), dtype=torch.long))
    torch.manual_seed(2)
    layer.learn(grad=torch.randn_like(module.weight), labels=torch.zeros(len(x), dtype=torch.long))
    return module.weight.grad, layer


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("rule", [*EARLY, Curved, Compared, Scaled])
def test_rules_learn_the_same(rule, case):
    kind = registry.rule(rule) if isinstance(rule, str) else rule
    assert torch.equal(update(kind(), case, True)[0], update(kind(), case, False)[0])


@pytest.mark.parametrize(("rule", "stays"), [("ghl", True), (Curved, False), (Compared, False), (Scaled, False)])
def test_a_rule_that_needs_the_whole_is_asked_with_it_from_then_on(rule, stays):
    layer = update(registry.rule(rule)() if isinstance(rule, str) else rule(), linear, True)[1]
    assert layer._in_pieces == stays
    _, x, output = linear()
    layer.forget()
    layer.observe(x, output)
    assert isinstance(layer._post, Rows) == stays


def test_a_mistake_in_a_rule_is_told_as_ever():
    with pytest.raises(ZeroDivisionError, match="the author's own"):
        update(Mistaken(), linear, True)


def test_in_float32_the_potential_is_the_output_itself():
    module, x, _ = linear()
    layer = PlasticLayer("layer", module, registry.rule("ghl")())
    layer.observe(x, module(x))
    assert isinstance(layer._post, Tensor)


class Widest(TorchDispatchMode):
    """Counts the float32 tensors of a shape that come to be."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.found = shape, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and tuple(made.shape) == self.shape and made.dtype == torch.float32:
            here = [value.data_ptr() for value in args if isinstance(value, Tensor)]
            self.found += made.data_ptr() not in here  # neither a view nor changed in place
        return made


@pytest.mark.parametrize(("in_pieces", "activities", "terms"), [(True, 1, 0), (False, 5, 6)])
def test_ghl_writes_out_one_float32_tensor_of_a_layer_s_activity_and_none_that_waits(in_pieces, activities, terms):
    """In place of the output's copy, less the bias, divided by τ, its softmax, and the product."""
    module, x, output = linear()
    layer = PlasticLayer("layer", module, registry.rule("ghl")(temperature=0.5))
    layer._in_pieces = in_pieces
    with Widest((20, 48)) as activity, Widest((48, 6)) as term:
        layer.observe(x, output)
        layer.begin()
    assert (activity.found, term.found) == (activities, terms)


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("rule", ["ghl", "ghl_fa"])
def test_what_waits_for_the_gradient_keeps_no_activity(rule, case):
    """The output of every layer would be held until the backward pass comes to it."""
    module, x, output = case()
    layer = PlasticLayer("layer", module, registry.rule(rule)())
    layer.observe(x, output)
    potential = StorageWeakRef(output.untyped_storage())
    del output
    assert not potential.expired()
    layer.begin()
    assert layer._begun is not None
    assert potential.expired()
