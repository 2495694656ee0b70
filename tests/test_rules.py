"""Every rule agrees with its naive reference through the real harness, and has its paper's properties."""

from __future__ import annotations

import ast
import copy
import inspect
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hebbbench
import references
from hebbbench import draw_counter, k_wta, layer_max, losers_flipped, registry, soft_wta
from hebbbench.errors import RuleError
from hebbbench.plasticity.attach import Plasticity
from hebbbench.plasticity.feedback import lay
from hebbbench.plasticity.signals import pre_of

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
CLASSES = 3

CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("bp", "fa", "dfa", "usf", "brsf", "frsf")),
    ("sign", {}),
    ("sign_fa", {}),
    ("random", {}),
    ("oja", {}),
    ("oja_post", {}),
    ("oja_post", {"activity": "relu"}),
    ("ghl", {}),
    ("ghl", {"temperature": 0.25}),
    ("softhebb", {}),
    ("softhebb", {"temperature": 1.5, "rate_power": 0.75}),
    ("softhebb", {"temperature": 0.5, "rate_power": 0.2, "anti_hebbian": False}),
    ("hebb", {}),
    ("hebb", {"activity": "relu"}),
    ("hebb", {"activity": "tanh"}),
    ("anti_hebb", {}),
    ("anti_hebb", {"activity": "relu"}),
    ("anti_hebb", {"activity": "tanh"}),
    ("subspace", {}),
    ("hpca", {}),
    ("hpca", {"activity": "linear", "scaled": False}),
    ("swta_fh", {}),
    ("swta_fh", {"temperature": 0.2}),
    ("kwta", {}),
    ("kwta", {"k": 3}),
    ("krotov", {}),
    ("krotov", {"p": 3.0, "k": 4, "unlearning": 0.1}),
    ("bcm", {}),
    ("bcm", {"threshold_rate": 0.1}),
    ("hwta_bcm", {}),
    ("hwta_bcm", {"threshold_rate": 0.35}),
    ("hwta_bcm_published", {}),
    ("hwta_bcm_published", {"threshold_rate": 0.35}),
    ("hebbnet", {}),
    ("hebbnet", {"sparsity": 0.5}),
    ("hebbnet", {"sparsity": 0.5, "keep": "unit"}),
    ("hebbnet", {"keep": "weight"}),
    ("liuson", {}),
    ("liuson", {"temperature": 0.5, "mask": "printed"}),
    ("softhebb_plain", {}),
    ("softhebb_plain", {"temperature": 0.5, "anti_hebbian": False}),
    ("liuson_triangle", {}),
    ("liuson_triangle", {"temperature": 0.5}),
    ("eghr", {}),
    ("eghr", {"target": 2.5}),
    ("ghl_fa", {}),
    ("ghl_fa", {"temperature": 0.25}),
    ("ghl_shuffled", {}),
    ("ghl_matched", {"temperature": 0.25}),
    ("ghl_hebbian", {}),
    ("ghl_reward", {}),
    ("hah", {}),
    ("hah", {"strength": 0.3, "unlearning": 0.5, "active": 0.4, "sparsity": 0.01}),
    ("local_sim", {}),
    ("local_sim", {"classes": 3}),
    ("ib", {}),
    ("ib", {"balance": 10.0, "width_input": 1.5, "width_label": 0.5, "width_layer": 0.7}),
    ("ib", {"classes": 40, "width_label": 0.2}),
]

LAYERWISE = [name for name in registry.rule_names() if registry.rule(name).shape != "step"]
"""Procedures for whole networks have their own: test_procedures.py."""

STATES: dict[str, str] = {
    "kwta": "threshold",
    "bcm": "threshold",
    "hwta_bcm": "threshold",
    "hwta_bcm_published": "threshold",
}
STATES |= {"hebbnet": "mean", "liuson": "mean", "liuson_triangle": "mean", "ghl_reward": "expected"}
"""Rules whose next step depends on steps before, and the tensor by which it does."""


def case_name(case: tuple[str, dict[str, Any]]) -> str:
    return "-".join([case[0], *(f"{key}={value}" for key, value in case[1].items())])


@dataclass(frozen=True)
class Geometry:
    """A convolution, and the padding its patches have: at the top, left, bottom, right."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: int | tuple[int, int] | str
    sides: tuple[int, int, int, int]
    mode: str = "zeros"
    dilation: tuple[int, int] = (1, 1)
    size: tuple[int, int] = (6, 7)

    def patches(self, x: Tensor) -> Tensor:
        return references.patches(x, self.kernel, self.stride, self.sides, self.mode, self.dilation)


GEOMETRIES = {
    "pointwise": Geometry((1, 1), (1, 1), 0, (0, 0, 0, 0)),
    "unpadded": Geometry((2, 3), (1, 1), 0, (0, 0, 0, 0)),
    "zeros": Geometry((3, 3), (1, 1), 1, (1, 1, 1, 1)),
    "zeros-uneven": Geometry((3, 3), (1, 1), (0, 2), (0, 2, 0, 2)),
    "stride-2": Geometry((3, 3), (2, 2), 1, (1, 1, 1, 1), size=(7, 7)),
    "stride-2-leaves-a-rest": Geometry((3, 3), (2, 2), 0, (0, 0, 0, 0), size=(6, 8)),
    "stride-3-leaves-a-rest": Geometry((3, 3), (3, 3), 1, (1, 1, 1, 1), size=(9, 8)),
    "stride-2-by-3": Geometry((2, 2), (2, 3), 1, (1, 1, 1, 1)),
    "reflect": Geometry((5, 5), (1, 1), 2, (2, 2, 2, 2), "reflect", size=(4, 5)),
    "reflect-stride-3": Geometry((3, 3), (3, 3), 1, (1, 1, 1, 1), "reflect", size=(9, 8)),
    "reflect-uneven": Geometry((3, 3), (2, 1), (2, 1), (2, 1, 2, 1), "reflect"),
    "same": Geometry((3, 5), (1, 1), "same", (1, 2, 1, 2)),
    "same-even-kernel": Geometry((2, 4), (1, 1), "same", (0, 1, 1, 2)),
    "same-reflect-even-kernel": Geometry((4, 2), (1, 1), "same", (1, 0, 2, 1), "reflect"),
    "same-dilated": Geometry((3, 3), (1, 1), "same", (2, 1, 2, 1), dilation=(2, 1)),
    "valid-reflect": Geometry((3, 3), (1, 1), "valid", (0, 0, 0, 0), "reflect"),
    "dilation-2": Geometry((3, 2), (1, 1), 0, (0, 0, 0, 0), dilation=(2, 3)),
    "dilation-2-stride-2-padded": Geometry((3, 3), (2, 2), 2, (2, 2, 2, 2), dilation=(2, 2), size=(7, 8)),
}


class Tiny(nn.Module):
    """Some layers, then a read-out: the least that can be trained."""

    def __init__(self, layers: dict[str, nn.Module], example: Tensor) -> None:
        super().__init__()
        self.body = nn.Sequential()
        for name, layer in layers.items():
            self.body.add_module(name, layer)
        self.body.add_module("flatten", nn.Flatten())
        with torch.no_grad():
            features = self.body(example).shape[1]
        self.head = nn.Linear(features, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def exact(shape: tuple[int, ...]) -> Tensor:
    """Random numbers that float32 and float64 hold alike."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def linear_model(inputs: int = 6, units: int = 5) -> Tiny:
    torch.manual_seed(1)
    return Tiny({"layer": nn.Linear(inputs, units, bias=False), "act": nn.Tanh()}, exact((2, inputs)))


def conv_model(geometry: Geometry, channels: int = 2, units: int = 4) -> tuple[Tiny, Tensor]:
    torch.manual_seed(2)
    x = exact((2, channels, *geometry.size))
    convolution = nn.Conv2d(
        channels,
        units,
        geometry.kernel,
        stride=geometry.stride,
        padding=geometry.padding,
        padding_mode=geometry.mode,
        dilation=geometry.dilation,
        bias=False,
    )
    return Tiny({"layer": convolution, "act": nn.Tanh()}, x), x


def labels_of(x: Tensor) -> Tensor:
    return torch.arange(len(x)) % CLASSES


def backprop_gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    """∂L/∂w of each linear or convolutional layer, by autograd on a copy that knows no rule."""
    twin = copy.deepcopy(model)
    F.cross_entropy(twin(x), labels_of(x)).backward()
    return [m.weight.grad for m in twin.modules() if isinstance(m, nn.Linear | nn.Conv2d)]


def learn(plasticity: Plasticity, model: nn.Module, x: Tensor, scale: float = 1.0) -> None:
    """One pass that leaves −Δw in each plastic weight's `grad`."""
    with plasticity.learning(labels_of(x), x):
        with nullcontext() if plasticity.moment == "backward" else torch.no_grad():
            features = model.body(x) if plasticity.layers[0].rule.end_to_end() else model(x)
        if plasticity.layers[0].rule.end_to_end():
            logits = model.head(features)
            plasticity.on_error(output_error(logits, x))
            (scale * F.cross_entropy(logits, labels_of(x))).backward()


def output_error(logits: Tensor, x: Tensor) -> Tensor:
    return logits.detach().softmax(1) - F.one_hot(labels_of(x), CLASSES)


def updates(
    model: nn.Module, rule: str, hyperparameters: dict[str, Any], x: Tensor, scale: float = 1.0
) -> list[Tensor]:
    """Δw of each plastic layer as rows (out, in); a convolution's columns run over (row, column, channel)."""
    model = copy.deepcopy(model)
    plasticity = Plasticity(model, ["layer*"], registry.rule(rule), hyperparameters)
    learn(plasticity, model, x, scale)
    return [rows(-weight.grad) for weight in plasticity.weights()]


def rows(weight: Tensor) -> Tensor:
    return weight if weight.dim() == 2 else weight.permute(0, 2, 3, 1).flatten(1)


def expected(
    rule: str,
    hyperparameters: dict[str, Any],
    x_rows: Tensor,
    weight: Tensor,
    grad: Tensor,
    error: Tensor,
    state: dict[str, Any] | None = None,
    x: Tensor | None = None,
    channels: int | None = None,
) -> Tensor:
    """The reference's Δw; `x` is the network's input, `channels` those of a convolution's input.

    A reference whose parameters are named as the hyper-parameters are is found by its name.
    """
    options = {"temperature": 1.0, "rate_power": 0.5, "anti_hebbian": True} | hyperparameters
    match rule:
        case "bp" | "fa" | "dfa" | "usf" | "brsf" | "frsf":  # their feedback paths: test_feedback.py
            return references.reference_bp(grad)
        case "sign" | "sign_fa":  # the latter's feedback path, too
            return references.reference_sign(grad)
        case "random":
            return references.reference_random(weight)
        case "oja":
            return references.reference_oja(x_rows, weight)
        case "ghl" | "ghl_fa":  # the latter's feedback path, too
            return references.reference_ghl(x_rows, weight, grad, options["temperature"])
        case "softhebb":
            return references.reference_softhebb(
                x_rows, weight, options["temperature"], options["rate_power"], options["anti_hebbian"]
            )
    given = {"x_patches": x_rows, "weight": weight, "grad": grad, "error": error, **(state or {})}
    given["channels"] = channels or x_rows.shape[1]
    if x is not None:
        given |= {"input": x.flatten(1), "labels": labels_of(x)}
    given |= registry.rule(rule)().model_dump() | hyperparameters
    reference = getattr(references, f"reference_{rule}")
    return reference(**{name: given[name] for name in inspect.signature(reference).parameters if name in given})


@cache
def expected_on(geometry: Geometry) -> list[Tensor]:
    """The reference of each case on a convolution, in float64."""
    model, x = conv_model(geometry)
    grad = rows(backprop_gradients(model.double(), x.double())[0])
    weight, seen = rows(model.body.layer.weight.detach()), geometry.patches(x)
    error = output_error(model(x.double()), x)
    return [expected(*case, seen, weight, grad, error, x=x.double(), channels=x.shape[1]) for case in CASES]


def assert_agrees(ours: Tensor, reference: Tensor) -> None:
    tolerance = TOLERANCE[ours.dtype]
    torch.testing.assert_close(
        ours.double(), reference, rtol=0, atol=tolerance * max(1.0, reference.abs().max().item())
    )


# Agreement with the references


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_on_a_linear_layer_a_rule_is_its_reference(case, dtype):
    rule, hyperparameters = case
    model, x = linear_model().to(dtype), exact((7, 6)).to(dtype)
    grad = backprop_gradients(model, x)[0]
    (ours,) = updates(model, rule, hyperparameters, x)
    weight, error = model.body.layer.weight.detach(), output_error(model(x), x)
    assert_agrees(ours, expected(rule, hyperparameters, x, weight, grad, error, x=x))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_on_a_convolution_every_rule_is_its_reference(geometry, dtype, layout):
    model, x = conv_model(geometry)
    model, x = model.to(dtype=dtype, memory_format=layout), x.to(dtype=dtype, memory_format=layout)
    for (rule, hyperparameters), reference in zip(CASES, expected_on(geometry), strict=True):
        (ours,) = updates(model, rule, hyperparameters, x)
        assert_agrees(ours, reference)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_the_references_patches_are_what_the_convolution_sees(geometry):
    model, x = conv_model(geometry)
    layer = model.body.layer.double()
    output = layer(x.double()).detach().permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(geometry.patches(x) @ rows(layer.weight.detach()).T, output, rtol=0, atol=1e-12)


def test_every_rule_in_the_registry_has_a_reference():
    signals_that_know_nothing = {"random_nn", "constant"}  # test_alignment.py
    assert {name for name, _ in CASES} == set(LAYERWISE) - signals_that_know_nothing


# GHL


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
def test_ghl_moves_no_weight_by_more_than_the_rate_and_one_by_all_of_it(temperature):
    model, x = conv_model(GEOMETRIES["zeros"])
    assert all((grad != 0).all() for grad in backprop_gradients(model, x))
    (delta,) = updates(model, "ghl", {"temperature": temperature}, x)
    assert delta.abs().max() == 1


def test_ghl_goes_against_the_gradient_wherever_it_moves():
    model, x = conv_model(GEOMETRIES["zeros"])
    (delta,) = updates(model, "ghl", {}, x)
    grad = rows(backprop_gradients(model, x)[0])
    moved = delta != 0
    assert moved.any()
    assert torch.equal(delta[moved].sign(), -grad[moved].sign())


@pytest.mark.parametrize("rule", ["ghl", "sign", "sign_fa", "bp", "ghl_fa", "ghl_shuffled", "ghl_matched"])
def test_where_the_gradient_is_zero_nothing_moves(rule):
    (delta,) = updates(linear_model(), rule, {}, exact((7, 6)), scale=0.0)
    assert torch.equal(delta, torch.zeros_like(delta))


def test_ghl_is_blind_to_the_size_of_the_gradient():
    model, x = linear_model(), exact((7, 6))
    assert torch.equal(updates(model, "ghl", {}, x)[0], updates(model, "ghl", {}, x, scale=64.0)[0])


@pytest.mark.parametrize("rule", ["ghl", "sign", "bp", "ghl_shuffled", "ghl_matched"])
def test_a_small_step_lowers_the_loss(rule):
    model, x = conv_model(GEOMETRIES["zeros"])
    model, x = model.double(), x.double()
    plasticity = Plasticity(model, ["layer"], registry.rule(rule), {})
    before = F.cross_entropy(model(x), labels_of(x)).item()
    learn(plasticity, model, x)
    torch.optim.SGD(plasticity.weights(), lr=1e-4).step()
    assert F.cross_entropy(model(x), labels_of(x)).item() < before


# SoftHebb


def test_competition_is_over_units_not_positions():
    post = exact((5, 4))
    torch.testing.assert_close(soft_wta(post, 0.7).sum(dim=1), torch.ones(5))


def test_temperature_divides_the_potential():
    post = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    odds = soft_wta(post, 0.5)[0, 1] / soft_wta(post, 0.5)[0, 0]
    torch.testing.assert_close(odds, torch.tensor(2.0, dtype=torch.float64).exp())


def test_a_win_too_small_for_float32_to_add_is_none_so_nothing_that_follows_is_subnormal():
    post = torch.tensor([[0.0, -20.0, -69.0, -70.0, -85.0, -200.0]])
    y, plain = soft_wta(post, 1.0), post.softmax(dim=1)
    assert torch.equal(y[0, :3], plain[0, :3])
    assert (plain[0, 3:5] > 0).all(), "the case has to have parts that are cut off"
    assert (y[0, 3:] == 0).all()
    weight = torch.full((6, 1), 1e-3)
    assert torch.equal(weight + y.T * 0.1, weight + plain.T * 0.1)


def test_an_objective_may_be_differentiated_through_the_competition():
    post = exact((5, 4)).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda u: soft_wta(u, 0.7), post)


@pytest.mark.parametrize("rule", ["softhebb", "oja"])
def test_a_position_counts_as_a_sample(rule):
    model, x = conv_model(GEOMETRIES["pointwise"])
    pixels = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1], 1, 1)
    alone = Tiny({"layer": model.body.layer}, pixels)
    torch.testing.assert_close(updates(model, rule, {}, x)[0], updates(alone, rule, {}, pixels)[0])


def test_a_tie_has_exactly_one_winner_and_it_is_the_first():
    post = torch.tensor([[2.0, 2.0, 2.0], [1.0, 3.0, 3.0], [0.0, 0.0, -1.0]])
    y = losers_flipped(soft_wta(post, 1.0), post)
    assert (y > 0).sum(dim=1).tolist() == [1, 1, 1]
    assert y.argmax(dim=1).tolist() == [0, 1, 0]


def test_with_equal_units_softhebb_still_is_its_reference():
    model, x = linear_model().double(), exact((7, 6)).double()
    with torch.no_grad():
        model.body.layer.weight.copy_(model.body.layer.weight[:1].expand(5, -1))
    (ours,) = updates(model, "softhebb", {}, x)
    assert_agrees(ours, references.reference_softhebb(x, model.body.layer.weight.detach(), 1.0, 0.5))


def test_a_unit_of_unit_norm_hardly_learns():
    model, x = linear_model().double(), exact((7, 6)).double()
    with torch.no_grad():
        model.body.layer.weight[0] /= model.body.layer.weight[0].norm()
    (delta,) = updates(model, "softhebb", {"rate_power": 0.5}, x)
    assert delta[0].abs().max() <= 1e-4 < delta[1:].abs().max()


@pytest.mark.parametrize("case", [[1.0, -2.0], [-3.0, -1.0], [0.0, 0.0], [float("nan"), 1.0], [-float("inf"), 1.0]])
def test_the_layer_maximum_is_that_of_the_magnitudes(case):
    delta = torch.tensor([case])
    naive = delta / (delta.abs().max() + 1e-30)
    torch.testing.assert_close(layer_max(delta), naive, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("count", [1, 3, 1000])
def test_after_the_layer_maximum_sum_and_mean_over_the_batch_are_one(count):
    mean = exact((4, 6)).double()
    torch.testing.assert_close(layer_max(mean * count), layer_max(mean), rtol=1e-14, atol=0)


@pytest.mark.parametrize("rule", ["softhebb", "ghl"])
def test_a_batch_shown_twice_over_gives_the_same_step(rule):
    model, x = linear_model().double(), exact((6, 6)).double()
    torch.testing.assert_close(updates(model, rule, {}, x)[0], updates(model, rule, {}, torch.cat([x, x]))[0])


# Oja


def test_oja_finds_the_first_principal_component_at_unit_norm():
    generator = torch.Generator().manual_seed(0)
    spread = torch.diag(torch.tensor([2.0, 1.0, 0.5, 0.25], dtype=torch.float64))
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    x = torch.randn(400, 4, generator=generator, dtype=torch.float64) @ spread @ turn
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3, bias=False)).double()
    plasticity = Plasticity(model, ["0"], registry.rule("oja"), {})
    optimizer = torch.optim.SGD(plasticity.weights(), lr=0.05)
    for _ in range(400):
        learn(plasticity, model, x)
        optimizer.step()
    weight = model[0].weight.detach()
    first = torch.linalg.eigh(x.T @ x).eigenvectors[:, -1]
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-8)
    torch.testing.assert_close((weight @ first).abs(), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-8)


# Rules with tensors of their own


def prepared(rule: str, hyperparameters: dict[str, Any], model: nn.Module, **state: Tensor) -> Plasticity:
    """The rule on the model's layer, its own tensors as given."""
    plasticity = Plasticity(model, ["layer*"], registry.rule(rule), hyperparameters)
    for name, value in state.items():
        plasticity.layers[0].state[name].copy_(value)
    return plasticity


def delta_of(plasticity: Plasticity, model: nn.Module, x: Tensor) -> Tensor:
    learn(plasticity, model, x)
    return rows(-plasticity.weights()[0].grad)


def fed(post: Tensor) -> tuple[Tiny, Tensor]:
    """A linear layer that is the identity, and rows that make these potentials."""
    model = linear_model(post.shape[1], post.shape[1]).to(post.dtype)
    with torch.no_grad():
        model.body.layer.weight.copy_(torch.eye(post.shape[1]))
    return model, post


@pytest.mark.parametrize("case", [case for case in CASES if case[0] in STATES], ids=case_name)
@pytest.mark.parametrize("value", [0.1, 0.7, 1.6])
def test_from_any_state_a_rule_is_its_reference(case, value):
    rule, hyperparameters = case
    model, x = linear_model().double(), exact((7, 6)).double()
    name = STATES[rule]
    scalar = rule == "ghl_reward"
    state = torch.tensor(value) if scalar else value * exact((5,)).abs().double()
    ours = delta_of(prepared(rule, hyperparameters, model, **{name: state}), model, x)
    given = {name: state.tolist()}
    weight, error = model.body.layer.weight.detach(), output_error(model(x), x)
    assert_agrees(ours, expected(rule, hyperparameters, x, weight, weight, error, given))


@pytest.mark.parametrize("rule", [*STATES, "ghl_shuffled", "ghl_matched"])
def test_a_restored_state_gives_the_same_next_steps(rule):
    model, x = linear_model(), exact((7, 6))
    first = prepared(rule, {}, model)
    for _ in range(3):
        learn(first, model, x)
    saved = copy.deepcopy(first.state_dict())
    twin = linear_model()
    other = prepared(rule, {}, twin)
    other.load_state_dict(saved)
    for _ in range(3):
        assert torch.equal(delta_of(first, model, x), delta_of(other, twin, x))


def test_bcms_threshold_follows_the_mean_square_of_activity():
    model, x = fed(exact((8, 5)).double())
    plasticity = prepared("bcm", {"threshold_rate": 0.25}, model)
    threshold = torch.ones(5, dtype=torch.float64)
    for _ in range(40):
        threshold = 0.75 * threshold + 0.25 * x.relu().square().mean(0)
        learn(plasticity, model, x)
        torch.testing.assert_close(plasticity.layers[0].state["threshold"], threshold)
    torch.testing.assert_close(threshold, x.relu().square().mean(0), rtol=1e-4, atol=1e-4)


def test_bcm_strengthens_above_the_threshold_and_weakens_below():
    post = torch.tensor([[2.0, 0.5, -1.0]], dtype=torch.float64)
    model, x = fed(post)
    plasticity = prepared("bcm", {"threshold_rate": 1e-9}, model)
    delta = delta_of(plasticity, model, x)
    torch.testing.assert_close(delta[:, 0], torch.tensor([2.0 * 1.0 * 2.0, 0.5 * -0.5 * 2.0, 0.0]).double())


@pytest.mark.parametrize(("rule", "memory"), [("hebbnet", 0.99), ("liuson", 0.9)])
def test_a_running_mean_is_used_before_it_moves(rule, memory):
    model, x = fed(exact((8, 5)).double())
    plasticity = prepared(rule, {"memory": memory}, model)
    first = delta_of(plasticity, model, x)
    mean = plasticity.layers[0].state["mean"].clone()
    torch.testing.assert_close(mean, (1 - memory) * x.relu().mean(0))
    learn(plasticity, model, x)
    torch.testing.assert_close(plasticity.layers[0].state["mean"], (1 - memory**2) * x.relu().mean(0))
    torch.testing.assert_close(first, updates(fed(x)[0], rule, {"memory": 0.0}, x)[0])


# Hebb, HPCA, Oja's subspace


def spread_data() -> tuple[Tensor, Tensor]:
    """Rows whose principal components have variances 4, 1, 1/4, 1/16; the components, largest first."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.diag(torch.tensor([2.0, 1.0, 0.5, 0.25], dtype=torch.float64))
    turn = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q
    x = torch.randn(400, 4, generator=generator, dtype=torch.float64) @ scales @ turn
    return x, torch.linalg.eigh(x.T @ x).eigenvectors.flip(1).T


def trained(rule: str, hyperparameters: dict[str, Any], x: Tensor, units: int, lr: float, steps: int) -> Tensor:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(x.shape[1], units, bias=False)).double()
    plasticity = Plasticity(model, ["0"], registry.rule(rule), hyperparameters)
    optimizer = torch.optim.SGD(plasticity.weights(), lr=lr)
    for _ in range(steps):
        learn(plasticity, model, x)
        optimizer.step()
        plasticity.constrain()
    return model[0].weight.detach()


def test_hpca_finds_the_principal_components_in_order():
    x, components = spread_data()
    weight = trained("hpca", {"activity": "linear", "scaled": False}, x, units=3, lr=0.05, steps=2000)
    torch.testing.assert_close((weight @ components.T).abs(), torch.eye(3, 4).double(), rtol=0, atol=1e-6)


def test_hpcas_step_falls_with_the_root_of_the_fan_in():
    model, x = linear_model().double(), exact((7, 6)).double()
    (scaled,) = updates(model, "hpca", {}, x)
    torch.testing.assert_close(scaled * 6**0.5, updates(model, "hpca", {"scaled": False}, x)[0])


def test_the_subspace_rule_spans_the_leading_components_orthonormally():
    x, components = spread_data()
    weight = trained("subspace", {}, x, units=2, lr=0.05, steps=1000)
    torch.testing.assert_close(weight @ weight.T, torch.eye(2).double(), rtol=0, atol=1e-8)
    torch.testing.assert_close(weight.T @ weight, components[:2].T @ components[:2], rtol=0, atol=1e-8)


def test_every_unit_of_linear_hebb_finds_the_first_component():
    x, components = spread_data()
    weight = trained("hebb", {}, x, units=3, lr=0.5, steps=200)
    torch.testing.assert_close((weight @ components[0]).abs(), torch.ones(3).double(), rtol=0, atol=1e-10)


def test_every_unit_of_linear_anti_hebb_finds_the_last_component():
    x, components = spread_data()
    weight = trained("anti_hebb", {}, x, units=3, lr=0.1, steps=2000)
    torch.testing.assert_close((weight @ components[-1]).abs(), torch.ones(3).double(), rtol=0, atol=1e-8)


UNIT_NORM = ["hebb", "anti_hebb", "kwta", "hebbnet", "liuson", "liuson_triangle"]


@pytest.mark.parametrize("rule", LAYERWISE)
def test_after_a_step_exactly_the_rules_that_say_so_have_unit_norm(rule):
    model, x = conv_model(GEOMETRIES["zeros"])
    plasticity = Plasticity(model, ["layer"], registry.rule(rule), {})
    learn(plasticity, model, x)
    torch.optim.SGD(plasticity.weights(), lr=0.1).step()
    before = model.body.layer.weight.detach().clone()
    plasticity.constrain()
    if rule in UNIT_NORM:
        torch.testing.assert_close(model.body.layer.weight.flatten(1).norm(dim=1), torch.ones(4))
        before = before / before.flatten(1).norm(dim=1)[:, None, None, None]
    torch.testing.assert_close(model.body.layer.weight.detach(), before)


def test_hebb_may_standardize_weights_instead():
    model, x = linear_model().double(), exact((7, 6)).double()
    plasticity = prepared("hebb", {"norm": "standard"}, model)
    learn(plasticity, model, x)
    plasticity.constrain()
    weight = model.body.layer.weight.detach()
    torch.testing.assert_close(weight.mean(1), torch.zeros(5).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(weight.std(1, correction=0), torch.ones(5).double())


# Winners


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "post", [exact((40, 5)), torch.zeros(4, 5), exact((40, 5)).round()], ids=["distinct", "all-tied", "some-tied"]
)
def test_exactly_k_win_and_of_those_that_tie_the_first(post, k):
    winners = k_wta(post, k)
    for row, won in zip(post.tolist(), winners.tolist(), strict=True):
        assert sorted(references.ranking(row)[:k]) == [unit for unit, value in enumerate(won) if value == 1]
    assert set(winners.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("k", [0, 6])
def test_more_winners_than_units_are_refused(k):
    with pytest.raises(RuleError, match=rf"k = {k} winners cannot be chosen among 5 units"):
        k_wta(exact((3, 5)), k)


def test_thresholds_give_every_unit_its_share_of_wins():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 6, generator=generator).double()
    weight[0] *= 10  # would win nearly everything
    model = linear_model().double()

    def rates(threshold_rate: float) -> Tensor:
        with torch.no_grad():
            model.body.layer.weight.copy_(weight)
        plasticity = prepared("kwta", {"k": 2, "threshold_rate": threshold_rate}, model)
        won = []
        for _ in range(600):
            x = torch.randn(64, 6, generator=generator).double().abs() + weight[0] / 10
            won.append(k_wta(x @ weight.T - plasticity.layers[0].state["threshold"], 2).mean(0))
            learn(plasticity, model, x)
        return torch.stack(won[300:]).mean(0)

    assert rates(0.0).max() > 0.9
    torch.testing.assert_close(rates(1.0), torch.full((5,), 0.4).double(), rtol=0, atol=0.02)


def test_krotov_moves_the_best_and_the_kth_unit_and_no_other():
    model, x = fed(torch.tensor([[5.0, 1.0, 4.0, 3.0, 2.0]], dtype=torch.float64))
    delta = delta_of(prepared("krotov", {"k": 3, "unlearning": 0.5}, model), model, x)
    assert [unit for unit in range(5) if delta[unit].any()] == [0, 3]
    torch.testing.assert_close(delta[3, 2], -0.5 * delta[0, 2])
    assert delta.abs().max() == 1


@pytest.mark.parametrize("p", [2.0, 3.0])
def test_krotovs_winners_settle_at_unit_p_norm(p):
    x = F.normalize(exact((40, 6)).double().abs(), dim=1)
    start = {"p": p, "k": 2, "unlearning": 0.0}
    weight = trained("krotov", start, x, units=2, lr=0.005, steps=4000)
    sums = weight.abs().pow(p).sum(1)
    assert (sums - 1).abs().min() < 0.02


@pytest.mark.parametrize("rule", ["swta_fh", "hwta_bcm"])
def test_competition_over_directions_is_blind_to_the_length_of_inputs(rule):
    model, x = linear_model().double(), exact((1, 6)).double()
    one, ten = updates(model, rule, {}, x)[0], updates(model, rule, {}, 10 * x)[0]
    if rule == "hwta_bcm":
        torch.testing.assert_close(one, ten)
    else:
        weight = model.body.layer.weight.detach()
        share = (one / (x - weight))[:, :1]
        torch.testing.assert_close(ten, share * (10 * x - weight))


def test_hwta_bcm_is_blind_to_the_length_of_weights():
    model, x = linear_model().double(), exact((7, 6)).double()
    (one,) = updates(model, "hwta_bcm", {}, x)
    with torch.no_grad():
        model.body.layer.weight *= torch.arange(1, 6).unsqueeze(1)
    torch.testing.assert_close(updates(model, "hwta_bcm", {}, x)[0], one)


def test_a_unit_of_swta_moves_as_far_for_one_input_as_for_nine_of_it():
    model, _ = fed(torch.zeros(1, 5))
    few = torch.cat([torch.eye(5)[:1], torch.eye(5)[1:2]])
    many = torch.cat([torch.eye(5)[:1].expand(9, -1), torch.eye(5)[1:2]])
    once, often = updates(model, "swta_fh", {}, 3 * few)[0], updates(model, "swta_fh", {}, 3 * many)[0]
    torch.testing.assert_close(once[0], often[0])
    torch.testing.assert_close(once[0], 2 * torch.eye(5)[0])


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_the_norm_of_patches_needs_no_patches(geometry, layout, monkeypatch):
    model, x = conv_model(geometry)
    layer, x = model.body.layer.double().to(memory_format=layout), x.double().to(memory_format=layout)
    pre = pre_of(x, layer(x), layer)
    monkeypatch.setattr(F, "unfold", lambda *_, **__: pytest.fail("unfolded"))
    reference = geometry.patches(x).square().sum(1)
    torch.testing.assert_close(pre.squared_norm, reference, rtol=0, atol=1e-12)


LOCAL = [case for case in CASES if not registry.rule(case[0]).end_to_end()]
LOCAL = [case for case in LOCAL if "convolution" not in getattr(registry.rule(case[0]), "expected_failures", {})]
"""Rules that need no loss; but for those that say why rows do not tell them all."""


@pytest.mark.parametrize("case", LOCAL, ids=case_name)
def test_a_convolution_learns_as_a_linear_layer_that_is_shown_its_patches(case):
    geometry = GEOMETRIES["dilation-2-stride-2-padded"]
    model, x = conv_model(geometry)
    patches = geometry.patches(x)
    flat = linear_model(patches.shape[1], 4).double()
    with torch.no_grad():
        flat.body.layer.weight.copy_(rows(model.body.layer.weight))
    (ours,) = updates(model.double(), *case, x.double())
    torch.testing.assert_close(ours, updates(flat, *case, patches)[0])


# HebbNet and Liuson's rule


def gini(sizes: list[float]) -> float:
    """Σ|a − b| / (2 n² mean)."""
    pairs = sum(abs(a - b) for a in sizes for b in sizes)
    return pairs / (2 * len(sizes) ** 2 * (sum(sizes) / len(sizes)))


@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.8])
def test_hebbnets_gini_coefficient_is_its_sparsity_where_those_kept_move_alike(sparsity):
    live = round(10 * (1 - sparsity))
    model, x = fed(torch.tensor([[1.0] * live + [0.5] * (10 - live)], dtype=torch.float64))
    delta = delta_of(prepared("hebbnet", {"sparsity": sparsity}, model), model, x)
    assert gini(delta.norm(dim=1).tolist()) == pytest.approx(sparsity)


def test_hebbnet_keeps_at_least_one_unit():
    model, x = fed(exact((1, 5)).double().abs())
    delta = delta_of(prepared("hebbnet", {"sparsity": 0.99}, model), model, x)
    assert (delta.norm(dim=1) > 0).sum() == 1


@pytest.mark.parametrize(
    ("mask", "post", "signs"),
    [
        ("intended", [3.0, 2.9, 0.1, 0.0, 0.0], [1, -1, 0, 0, 0]),
        ("printed", [3.0, 2.9, 0.1, 0.0, 0.0], [1, 0, -1, -1, -1]),
        ("intended", [-1.0, -2.0, 0.0, 0.0, 0.0], [1, -1, -1, -1, -1]),
        ("printed", [-1.0, -2.0, 0.0, 0.0, 0.0], [1, -1, -1, -1, -1]),
        ("intended", [9.0, 9.0, 0.0, 0.0, 0.0], [1, -1, 0, 0, 0]),
    ],
)
def test_liusons_mask_has_three_clauses(mask, post, signs):
    model, x = fed(torch.ones(1, 5, dtype=torch.float64))
    with torch.no_grad():
        model.body.layer.weight.copy_(torch.tensor(post).diag())
    delta = delta_of(prepared("liuson", {"mask": mask}, model), model, x)
    assert delta[:, 0].sign().int().tolist() == signs


def test_liusons_units_compete_by_what_exceeds_their_mean():
    model, x = fed(torch.tensor([[3.0, 2.0, 0.0, 0.0, 0.0]], dtype=torch.float64))
    delta = delta_of(prepared("liuson", {}, model, mean=torch.tensor([2.5, 0.0, 0.0, 0.0, 0.0])), model, x)
    assert delta[0, 0] <= 0 < delta[1, 0]


# EGHR


def test_eghr_rests_on_independent_laplacian_sources_of_unit_variance():
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(200_000, 3, generator=generator, dtype=torch.float64) - 0.5
    sources = -uniform.sign() * (1 - 2 * uniform.abs()).log() / 2**0.5
    model, x = fed(sources)
    (still,) = updates(model, "eghr", {}, x)
    (moved,) = updates(model, "eghr", {}, 2 * x)
    assert still.abs().max() < 0.05
    assert moved.diagonal().max() < -1


def test_eghr_separates_mixed_sources():
    generator = torch.Generator().manual_seed(1)
    uniform = torch.rand(3000, 2, generator=generator, dtype=torch.float64) - 0.5
    sources = -uniform.sign() * (1 - 2 * uniform.abs()).log() / 2**0.5
    mixing = torch.tensor([[1.0, 0.5], [0.4, 1.0]], dtype=torch.float64)
    weight = trained("eghr", {}, sources @ mixing.T, units=2, lr=0.02, steps=1500)
    through = (weight @ mixing).abs().sort(dim=1).values
    assert (through[:, 0] < 0.1 * through[:, 1]).all()
    assert (weight @ mixing).abs().argmax(dim=1).unique().numel() == 2


# GHL's controls


def test_shuffled_steps_have_ghls_sizes_in_another_order():
    model, x = conv_model(GEOMETRIES["zeros"])
    ours, ghl = updates(model, "ghl_shuffled", {}, x)[0], updates(model, "ghl", {}, x)[0]
    assert torch.equal(ours.abs().flatten().sort().values, ghl.abs().flatten().sort().values)
    assert torch.equal(ours.sign(), ghl.sign())
    assert not torch.equal(ours, ghl)


def test_matched_steps_are_drawn_from_ghls_sizes():
    model, x = conv_model(GEOMETRIES["zeros"])
    ours, ghl = updates(model, "ghl_matched", {}, x)[0], updates(model, "ghl", {}, x)[0]
    sizes = set(ghl.abs().flatten().tolist())
    drawn = ours.abs().flatten().tolist()
    assert set(drawn) < sizes
    assert torch.equal(ours.sign(), ghl.sign())


@pytest.mark.parametrize("rule", ["ghl_shuffled", "ghl_matched"])
def test_draws_differ_from_step_to_step_and_layer_to_layer_and_repeat_from_the_start(rule):
    model, x = two_layers(), exact((7, 6))
    starts = [layer.state["draws"].item() for layer in prepared(rule, {}, model).layers]
    assert starts[0] != starts[1]

    def steps() -> list[Tensor]:
        plasticity = prepared(rule, {}, model)
        return [delta_of(plasticity, model, x) for _ in range(2)]

    first, second = steps()
    assert not torch.equal(first, second)
    assert torch.equal(torch.stack(steps()), torch.stack([first, second]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_where_draws_start_depends_on_the_numbers_alone(dtype):
    weight = exact((4, 6)).bfloat16()
    assert draw_counter(weight.to(dtype)) == draw_counter(weight.float()) == draw_counter(weight.float().T)
    assert draw_counter(weight) != draw_counter(weight.roll(1) * 1.5)


def test_ghl_on_random_feedback_has_ghls_sizes_and_the_signs_of_feedback_alignment():
    def deltas(rule: str) -> list[Tensor]:
        model = two_layers()
        lay(model, registry.rule(rule).feedback, seed=0)
        return updates(model, rule, {}, exact((7, 6)))

    for ours, ghl, fa in zip(deltas("ghl_fa"), deltas("ghl"), deltas("fa"), strict=True):
        assert torch.equal(ours.abs(), ghl.abs())
        assert not torch.equal(ours, ghl)
        assert torch.equal(ours.sign(), fa.sign())


def test_ghl_without_the_gradient_has_ghls_sizes_and_its_own_signs():
    model, x = conv_model(GEOMETRIES["zeros"])
    ours, ghl = updates(model, "ghl_hebbian", {}, x)[0], updates(model, "ghl", {}, x)[0]
    torch.testing.assert_close(ours.abs(), ghl.abs())
    assert not torch.equal(ours.sign(), ghl.sign())


@pytest.mark.parametrize(("expected_error", "reward"), [(1.0, 1.0), (0.0, -1.0)])
def test_reward_turns_the_hebbian_step_by_whether_errors_fell(expected_error, reward):
    model, x = linear_model().double(), exact((7, 6)).double()
    plasticity = prepared("ghl_reward", {"memory": 0.75}, model, expected=torch.tensor(expected_error))
    delta = delta_of(plasticity, model, x)
    torch.testing.assert_close(delta, reward * updates(model, "ghl_hebbian", {}, x)[0])
    wrong = 1 - model(x).softmax(1)[torch.arange(7), labels_of(x)].mean().item()
    moved = plasticity.layers[0].state["expected"].item()
    assert moved == pytest.approx(0.75 * expected_error + 0.25 * wrong)


# What holds for every rule


@pytest.mark.parametrize("rule", LAYERWISE)
def test_a_rule_leaves_weights_and_inputs_alone(rule):
    model, x = conv_model(GEOMETRIES["reflect"])
    plasticity = Plasticity(model, ["layer"], registry.rule(rule), {})
    weight, given = model.body.layer.weight.detach().clone(), x.clone()
    learn(plasticity, model, x)
    assert torch.equal(model.body.layer.weight, weight)
    assert torch.equal(x, given)


@pytest.mark.parametrize("rule", LAYERWISE)
@pytest.mark.parametrize(
    "x",
    [torch.zeros(4, 6), torch.ones(4, 6), 1e4 * exact((4, 6)), 1e-12 * exact((4, 6)), exact((1, 6))],
    ids=["zeros", "constant", "large", "small", "one-sample"],
)
def test_an_update_is_finite(rule, x):
    (delta,) = updates(linear_model(), rule, {}, x)
    assert torch.isfinite(delta).all()


@pytest.mark.parametrize("rule", LAYERWISE)
def test_an_update_does_not_depend_on_the_order_of_samples(rule):
    model, x = linear_model().double(), exact((6, 6)).double()
    turned = x[[3, 4, 5, 0, 1, 2]]
    assert torch.equal(labels_of(turned), labels_of(x)[[3, 4, 5, 0, 1, 2]])
    torch.testing.assert_close(updates(model, rule, {}, x), updates(model, rule, {}, turned))


@pytest.mark.parametrize("rule", LAYERWISE)
def test_a_rule_file_imports_torch_pydantic_and_public_names_only(rule):
    for node in ast.walk(ast.parse(registry.rule_path(rule).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert all(alias.name.split(".")[0] != "hebbbench" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hebbbench"):
            assert node.module == "hebbbench"
            assert {alias.name for alias in node.names} <= set(hebbbench.__all__)


# Hyper-parameters


def two_layers() -> Tiny:
    torch.manual_seed(3)
    layers = {"layer1": nn.Linear(6, 5, bias=False), "act": nn.Tanh(), "layer2": nn.Linear(5, 4, bias=False)}
    return Tiny(layers, exact((2, 6)))


@pytest.mark.parametrize("rule", ["softhebb", "ghl"])
def test_a_list_gives_each_layer_its_own_value(rule):
    model, x = two_layers(), exact((7, 6))
    first, second = updates(model, rule, {"temperature": [0.5, 2.0]}, x)
    assert torch.equal(first, updates(model, rule, {"temperature": 0.5}, x)[0])
    assert torch.equal(second, updates(model, rule, {"temperature": 2.0}, x)[1])
    assert not torch.equal(second, updates(model, rule, {"temperature": 0.5}, x)[1])


def test_a_list_of_the_wrong_length_is_refused_with_the_layers_named():
    with pytest.raises(RuleError, match=r"3 values for 2 plastic layers \(body.layer1, body.layer2\)"):
        Plasticity(two_layers(), ["layer*"], registry.rule("ghl"), {"temperature": [1.0, 2.0, 3.0]})


def test_an_unknown_hyperparameter_is_refused_with_the_nearest_one():
    with pytest.raises(RuleError, match=r"no hyper-parameter 'temprature'. Did you mean 'temperature'\?"):
        Plasticity(two_layers(), ["layer*"], registry.rule("softhebb"), {"temprature": 1.0})


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf"), "hot", None])
def test_an_impossible_temperature_is_refused_by_name_and_value(value):
    with pytest.raises(RuleError, match=r"body.layer1: GHL.temperature = "):
        Plasticity(two_layers(), ["layer*"], registry.rule("ghl"), {"temperature": value})
