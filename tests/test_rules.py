"""Every rule agrees with its naive reference through the real harness, and has its paper's properties."""

from __future__ import annotations

import ast
import copy
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hebbbench
import references
from hebbbench import layer_max, losers_flipped, registry, soft_wta
from hebbbench.errors import RuleError
from hebbbench.plasticity.attach import Plasticity

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
CLASSES = 3

CASES: list[tuple[str, dict[str, Any]]] = [
    ("bp", {}),
    ("sign", {}),
    ("random", {}),
    ("oja", {}),
    ("ghl", {}),
    ("ghl", {"temperature": 0.25}),
    ("softhebb", {}),
    ("softhebb", {"temperature": 1.5, "rate_power": 0.75}),
    ("softhebb", {"temperature": 0.5, "rate_power": 0.2, "anti_hebbian": False}),
]


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
    with plasticity.learning(labels_of(x)):
        logits = model(x)
        if plasticity.layers[0].rule.end_to_end():
            plasticity.on_error(logits.detach().softmax(1) - F.one_hot(labels_of(x), CLASSES))
            (scale * F.cross_entropy(logits, labels_of(x))).backward()


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


def expected(rule: str, hyperparameters: dict[str, Any], x_rows: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    options = {"temperature": 1.0, "rate_power": 0.5, "anti_hebbian": True} | hyperparameters
    match rule:
        case "bp":
            return references.reference_bp(grad)
        case "sign":
            return references.reference_sign(grad)
        case "random":
            return references.reference_random(weight)
        case "oja":
            return references.reference_oja(x_rows, weight)
        case "ghl":
            return references.reference_ghl(x_rows, weight, grad, options["temperature"])
        case "softhebb":
            return references.reference_softhebb(
                x_rows, weight, options["temperature"], options["rate_power"], options["anti_hebbian"]
            )
    raise NotImplementedError(rule)


@cache
def expected_on(geometry: Geometry) -> list[Tensor]:
    """The reference of each case on a convolution, in float64."""
    model, x = conv_model(geometry)
    grad = rows(backprop_gradients(model.double(), x.double())[0])
    weight, seen = rows(model.body.layer.weight.detach()), geometry.patches(x)
    return [expected(*case, seen, weight, grad) for case in CASES]


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
    assert_agrees(ours, expected(rule, hyperparameters, x, model.body.layer.weight.detach(), grad))


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
    assert {name for name, _ in CASES} == set(registry.rule_names())


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


@pytest.mark.parametrize("rule", ["ghl", "sign", "bp"])
def test_where_the_gradient_is_zero_nothing_moves(rule):
    (delta,) = updates(linear_model(), rule, {}, exact((7, 6)), scale=0.0)
    assert torch.equal(delta, torch.zeros_like(delta))


def test_ghl_is_blind_to_the_size_of_the_gradient():
    model, x = linear_model(), exact((7, 6))
    assert torch.equal(updates(model, "ghl", {}, x)[0], updates(model, "ghl", {}, x, scale=64.0)[0])


@pytest.mark.parametrize("rule", ["ghl", "sign", "bp"])
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


# What holds for every rule


@pytest.mark.parametrize("rule", registry.rule_names())
def test_a_rule_leaves_weights_and_inputs_alone(rule):
    model, x = conv_model(GEOMETRIES["reflect"])
    plasticity = Plasticity(model, ["layer"], registry.rule(rule), {})
    weight, given = model.body.layer.weight.detach().clone(), x.clone()
    learn(plasticity, model, x)
    assert torch.equal(model.body.layer.weight, weight)
    assert torch.equal(x, given)


@pytest.mark.parametrize("rule", registry.rule_names())
@pytest.mark.parametrize(
    "x",
    [torch.zeros(4, 6), torch.ones(4, 6), 1e4 * exact((4, 6)), 1e-12 * exact((4, 6)), exact((1, 6))],
    ids=["zeros", "constant", "large", "small", "one-sample"],
)
def test_an_update_is_finite(rule, x):
    (delta,) = updates(linear_model(), rule, {}, x)
    assert torch.isfinite(delta).all()


@pytest.mark.parametrize("rule", registry.rule_names())
def test_an_update_does_not_depend_on_the_order_of_samples(rule):
    model, x = linear_model().double(), exact((6, 6)).double()
    turned = x[[3, 4, 5, 0, 1, 2]]
    assert torch.equal(labels_of(turned), labels_of(x)[[3, 4, 5, 0, 1, 2]])
    torch.testing.assert_close(updates(model, rule, {}, x), updates(model, rule, {}, turned))


@pytest.mark.parametrize("rule", registry.rule_names())
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
