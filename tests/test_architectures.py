"""Architectures: the published parameter counts and sizes, a body and a head, no knowledge of rules."""

from __future__ import annotations

import ast
import math

import pytest
import torch
from torch import Tensor, nn

import references
from conftest import NETWORK
from hebbbench import registry
from hebbbench.architectures.deephebb import Power, Triangle
from hebbbench.data import dataset_spec
from hebbbench.errors import ProtocolError, UnknownNameError
from hebbbench.plasticity.select import select
from hebbbench.training.network import build_model
from hebbbench.training.outline import count as counted

CIFAR = (3, 32, 32)
NAMES = registry.architecture_names()


SMALL = {"vgg": {"width": 8, "hidden": 16}, "timm": {"model": "test_resnet"}}
"""Options that make an architecture small enough to compute with."""


def build(name: str, input_shape: tuple[int, int, int] = CIFAR, classes: int = 10, **options) -> nn.Module:
    return registry.architecture(name)(input_shape, classes, **{**SMALL.get(name, {}), **options}).eval()


def batch(model: nn.Module, input_shape: tuple[int, int, int] = CIFAR) -> Tensor:
    if model.layout == "tokens":
        return torch.arange(2 * input_shape[0]).view(2, -1)
    x = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0))
    return x.flatten(1) if model.layout == "flat" else x


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def shapes(model: nn.Module, input_shape: tuple[int, int, int] = CIFAR) -> dict[str, tuple[int, ...]]:
    """Output shape, without the batch, of every module of the body."""
    result, x = {}, batch(model, input_shape)
    for name, module in model.body.named_children():
        x = module(x)
        result[name] = tuple(x.shape[1:])
    return result


# The contract


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_its_body_then_its_head(name):
    model = build(name)
    x = batch(model)
    with torch.no_grad():
        features = model.body(x)
        assert torch.equal(model(x), model.head(features))
    assert features.dim() == 2
    assert model(x).shape == (2, 10)
    assert count(model) == count(model.body) + count(model.head)


@pytest.mark.parametrize("name", NAMES)
def test_the_read_out_has_as_many_outputs_as_classes(name):
    assert build(name, classes=7)(batch(build(name))).shape == (2, 7)


@pytest.mark.parametrize("name", NAMES)
def test_a_layout_says_how_the_input_arrives(name):
    assert registry.architecture(name).layout in ("image", "flat", "tokens")


@pytest.mark.parametrize("name", NAMES)
def test_an_architecture_file_knows_torch_alone(name):
    path = registry._files("architectures")[name][1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not str(node.module).startswith("hebbbench")
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("hebbbench") for alias in node.names)


@pytest.mark.parametrize("name", NAMES)
def test_the_code_of_an_architecture_is_that_of_the_results(name):
    """A change of the code fails here: if it changes no number, add its fingerprint to architectures/code.yaml."""
    assert registry.architecture_source_hash(name) == registry.first_architecture_hash(name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"flat"', '"row"', r"layout = 'row'\. Valid: image, flat, tokens"),
        ("self.body =", "self.trunk =", r"has no module `body`, what makes the features\. Set self\.body in __init__"),
        ("self.head =", "self.exit =", r"has no module `head`, the read-out behind them"),
        (
            "super",
            "4 / 0; super",
            r"with \{'width': 5\} for 8×8×1 images: division by zero \(net.py, line 10\)",
        ),
        ("nn.Linear(width,", "nn.Linear(7,", r"fails on one sample of digits: RuntimeError: "),
        ("(width, classes)", "(width, 3)", r"answers \(1, 3\) of one sample of digits\. Make it .* \(1, 10\)"),
        ("nn.Flatten(), ", "nn.Unflatten(1, (1, 64)), ", r"makes features \(1, 1, 5\) and answers \(1, 1, 10\)"),
        ("width=4", "wide=4", r"has no option 'width'\. Did you mean 'wide'"),
    ],
)
def test_a_network_that_is_none_is_refused_before_anything_runs(tmp_path, old, new, message):
    path = tmp_path / "net.py"
    path.write_text(NETWORK.replace(old, new))
    with pytest.raises(ProtocolError, match=message):
        counted(str(path), {"width": 5}, "digits")


@pytest.mark.parametrize("name", NAMES)
def test_an_architecture_is_a_function_of_the_seed(name):
    def weights() -> list[Tensor]:
        torch.manual_seed(5)
        return list(build(name).state_dict().values())

    assert all(torch.equal(a, b) for a, b in zip(weights(), weights(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_a_default_and_a_line_of_description(name):
    architecture = registry.architecture(name)
    assert registry.summary(name)
    assert architecture.__doc__
    assert build(name) is not None


def test_an_unknown_architecture_is_refused_with_the_nearest():
    with pytest.raises(UnknownNameError, match=r"no architecture 'depheb'. Did you mean 'deephebb'\?"):
        registry.architecture("depheb")


def test_a_value_that_is_none_of_a_few_is_refused_with_the_nearest():
    with pytest.raises(
        ProtocolError, match=r"'mlp': activation = 'rulu' is none of its values\. Did you mean 'relu'\?"
    ):
        build_model("mlp", {"widths": [4], "activation": "rulu"}, (8, 8, 1), 10)


# DeepHebb


def test_deephebb_has_the_published_number_of_weights():
    model = build("deephebb")
    convolutions = [count(module) for module in model.body.modules() if isinstance(module, nn.Conv2d)]
    assert convolutions == [7200, 331776, 5308416]
    assert count(model.head) == 245770
    assert count(model) == 7200 + 331776 + 5308416 + 245770


def test_deephebb_has_the_published_sizes():
    size = shapes(build("deephebb"))
    assert size["conv1"] == (96, 32, 32)
    assert size["pool1"] == (96, 16, 16)
    assert size["pool2"] == (384, 8, 8)
    assert size["pool3"] == (1536, 4, 4)
    assert size["flatten"] == (24576,)


def test_each_deephebb_block_is_norm_conv_activation_pool():
    model = build("deephebb", widths=(4, 5, 6), activation="triangle", padding="reflect")
    kinds = [type(module).__name__ for module in model.body]
    assert kinds == [
        *("BatchNorm2d", "Conv2d", "Triangle", "MaxPool2d", "Power"),
        *("BatchNorm2d", "Conv2d", "Triangle", "MaxPool2d", "Power"),
        *("BatchNorm2d", "Conv2d", "Triangle", "AvgPool2d"),
        "Flatten",
    ]
    assert [m.power for m in model.body if isinstance(m, Power)] == [0.7, 1.4]
    assert [m.power for m in model.body if isinstance(m, Triangle)] == [1.0, 1.0, 1.0]
    assert {m.padding_mode for m in model.body if isinstance(m, nn.Conv2d)} == {"reflect"}
    assert not [p for m in model.body if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    assert model.head.dropout.p == 0.5


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 96, 96), (3, 32, 16)], ids=str)
def test_deephebb_takes_other_sizes(shape):
    model = build("deephebb", shape, widths=(4, 5, 6))
    assert model(batch(model, shape)).shape == (2, 10)


@pytest.mark.parametrize("power", [0.7, 1.0, 1.4])
def test_triangle_is_its_naive_loop(power):
    u = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(Triangle(power)(u), references.triangle(u, power), rtol=0, atol=1e-12)


@pytest.mark.parametrize("power", [0.7, 1.4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_power_keeps_the_order_of_what_a_maximum_is_taken_over(power, dtype):
    """All of bfloat16's numbers from 0 to infinity, and as many of float32's, evenly over its bits."""
    bits = torch.arange(0x7F80 + 1, dtype=torch.int32)
    y = (bits << 16).view(torch.float32).to(dtype) if dtype == torch.bfloat16 else (bits * 65521).view(torch.float32)
    raised = Power(power)(y[: len(y) // 32 * 32])  # whole vectors: a processor may raise what is left otherwise
    assert (raised[1:] >= raised[:-1]).all()


@pytest.mark.parametrize("powers", [(0.7, 1.4, 1.0), (1.0, 2.0, 0.5)])
def test_behind_the_pool_a_power_gives_what_it_gives_before_it(powers):
    options = {"widths": (16, 16, 16), "activation": "triangle", "padding": "reflect"}
    model = build("deephebb", powers=powers, **options)
    x = h = batch(model)
    with torch.no_grad():
        for i, power in enumerate(powers, start=1):
            u = getattr(model.body, f"conv{i}")(getattr(model.body, f"norm{i}")(h))
            h = getattr(model.body, f"pool{i}")(Triangle(power)(u))
        assert torch.equal(model.body(x), h.flatten(1))


def test_no_power_is_put_behind_a_pool_that_takes_no_maximum_or_where_it_turns_the_order():
    options = {"widths": (4, 5, 6), "activation": "triangle"}
    for more in ({"pools": ("avg", "avg4", "avg")}, {"powers": (-1.0, 0.0, 1.0)}):
        model = build("deephebb", **options, **more)
        assert not [m for m in model.body if isinstance(m, Power)]
        kept = more.get("powers", (0.7, 1.4, 1.0))
        assert tuple(m.power for m in model.body if isinstance(m, Triangle)) == kept


def test_a_power_behind_a_pool_passes_a_finite_gradient_where_all_is_zero():
    u = torch.zeros(1, 2, 4, 4)
    u[:, 1, 0, 0] = -1
    u.requires_grad_()
    Power(0.7)(nn.MaxPool2d(4, 2, 1)(Triangle(1.0)(u))).sum().backward()
    assert torch.isfinite(u.grad).all()


@pytest.mark.parametrize("power", [0.7, 1.0, 1.4])
def test_triangle_passes_a_finite_gradient_where_it_is_zero(power):
    u = torch.tensor([-1.0, 0.0, 0.0, 1.0]).view(1, 4, 1, 1).requires_grad_()
    Triangle(power)(u).sum().backward()
    assert torch.isfinite(u.grad).all()


# FastHebb


def test_fasthebb_has_about_ten_million_weights_most_of_them_in_the_wide_layer():
    model = build("fasthebb")
    assert count(model) == 10_271_786
    assert count(model.body.fc5) / count(model) == pytest.approx(0.92, abs=0.005)


def test_fasthebb_has_the_published_sizes():
    size = shapes(build("fasthebb"))
    assert size["norm1"] == (96, 14, 14)
    assert size["norm2"] == (128, 12, 12)
    assert size["norm3"] == (192, 5, 5)
    assert size["norm4"] == (256, 3, 3)
    assert size["flatten"] == (2304,)
    assert size["norm5"] == (4096,)


def test_fasthebb_normalises_last_and_only_the_wide_layers_norm_learns():
    body = build("fasthebb", widths=(2, 3, 4, 5), hidden=6).body
    names = [name for name, _ in body.named_children()]
    assert names[:4] == ["conv1", "act1", "pool1", "norm1"]
    assert names[4:7] == ["conv2", "act2", "norm2"]
    assert [f"norm{i}" for i in range(1, 6) if list(body.get_submodule(f"norm{i}").parameters())] == ["norm5"]
    assert all(m.bias is None for m in body if isinstance(m, nn.Conv2d))
    assert body.fc5.bias is not None


def test_fasthebb_takes_the_smallest_input_it_promises():
    model = build("fasthebb", (3, 26, 26), widths=(2, 3, 4, 5), hidden=6)
    assert model(batch(model, (3, 26, 26))).shape == (2, 10)


# Their ImageNet forms


def of_protocol(name: str) -> nn.Module:
    """A protocol's network with shapes and no values, from its own options."""
    work = registry.protocol(name)
    spec = dataset_spec(work.data.dataset)
    return build_model(work.architecture.name, work.architecture.options, spec.shape, spec.classes, outline=True)


def test_deephebb_on_imagenet_has_five_convolutions_and_reads_means():
    model = of_protocol("imagenet-deephebb")
    convolutions = [count(module) for module in model.body if isinstance(module, nn.Conv2d)]
    assert convolutions == [3600, 82_944, 1_327_104, 21_233_664, 339_738_624]
    assert model.head.linear.in_features == 12288


def test_fasthebb_on_imagenet_has_ten_layers_and_a_last_map_of_three_by_three():
    model = of_protocol("imagenet-fasthebb")
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert [layer.weight.shape[0] for layer in layers] == [96, 128, 192, 192, 256, 256, 384, 512, 4096, 1000]
    assert model.body.fc9.in_features == 512 * 3 * 3


@pytest.mark.parametrize(
    ("name", "features"), [("stl10-deephebb", 6144 * 6 * 6), ("imagenette-deephebb", 12288 * 5 * 5)]
)
def test_deephebbs_deeper_forms_read_every_position(name, features):
    assert of_protocol(name).head.linear.in_features == features


def test_a_depth_and_a_growth_say_which_blocks_deephebb_has():
    model = build("deephebb", widths=(4, 9, 9), depth=2, growth=3)
    assert [module.out_channels for module in model.body if isinstance(module, nn.Conv2d)] == [4, 12]
    assert [type(module).__name__ for module in model.body if "Pool" in type(module).__name__] == ["MaxPool2d"] * 2
    assert model.head.linear.in_features == 12 * 8 * 8
    with pytest.raises(ProtocolError, match="depth = 4, expected 1 to 3"):
        build_model("deephebb", {"depth": 4}, (32, 32, 3), 10)


# VGG and ResNet


def outline(name: str, **options) -> nn.Module:
    """The network with shapes and no values, whatever its size."""
    return build_model(name, options, (32, 32, 3), 10, outline=True)


@pytest.mark.parametrize(("depth", "millions"), [(14, 14.71), (16, 33.63)])
def test_vgg_has_the_published_number_of_weights(depth, millions):
    model = outline("vgg", depth=depth)
    assert math.floor(count(model) / 1e4) == round(100 * millions)
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(linear) + len(convolutions) == depth
    assert not [module for module in convolutions if module.bias is not None]


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.72), (1202, 19.33)]
)
def test_resnet_has_the_published_number_of_weights(depth, millions):
    model = outline("resnet", depth=depth)
    assert round(count(model) / 1e6, 2) == millions
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules()) == depth
    assert len(model.segments()) == (depth - 2) // 2


def test_vgg_has_the_published_sizes():
    size = shapes(build("vgg", width=2, hidden=6))
    assert [size[f"pool{group}"] for group in range(1, 6)] == [
        (2, 16, 16),
        (4, 8, 8),
        (8, 4, 4),
        (16, 2, 2),
        (16, 1, 1),
    ]
    assert size["act15"] == (6,)


def test_resnet_has_the_published_sizes():
    size = shapes(build("resnet", depth=8, width=3))
    assert [size[f"stage{stage}"] for stage in (1, 2, 3)] == [(3, 32, 32), (6, 16, 16), (12, 8, 8)]
    assert size["flatten"] == (12,)


def test_a_resnet_block_with_dead_convolutions_is_its_shortcut():
    body = build("resnet", depth=8, width=4).body
    for stage, (channels, stride, margin) in ((1, (4, 1, 0)), (2, (4, 2, 2)), (3, (8, 2, 4))):
        block = body.get_submodule(f"stage{stage}.block1")
        nn.init.zeros_(block.conv2.weight)
        x = torch.rand(2, channels, 6, 6)
        y = block(x)
        assert torch.equal(y[:, margin : margin + channels], x[:, :, ::stride, ::stride])
        assert y.shape[1] == channels + 2 * margin
        assert not y[:, :margin].any()
        assert not y[:, margin + channels :].any()


@pytest.mark.parametrize(("name", "depth"), [("vgg", 15), ("resnet", 21), ("resnet", 2)])
def test_a_depth_that_does_not_exist_is_refused(name, depth):
    with pytest.raises(ProtocolError, match=f"depth = {depth}, expected"):
        build_model(name, {"depth": depth}, (32, 32, 3), 10)


# Networks of timm


@pytest.mark.parametrize(
    ("model", "millions", "features"), [("resnet18", 11.69, 512), ("resnet50", 25.56, 2048), ("vgg16", 138.36, 4096)]
)
def test_imagenet_networks_have_the_published_number_of_weights(model, millions, features):
    built = build_model("timm", {"model": model}, (224, 224, 3), 1000, outline=True).eval()
    assert round(count(built) / 1e6, 2) == millions
    assert built.body(torch.zeros(1, 3, 224, 224, device="meta")).shape == (1, features)


def test_the_vision_transformer_of_its_protocol_has_24_plastic_maps_of_tokens():
    work = registry.protocol("cifar10-vit")
    model = build_model("timm", work.architecture.options, (32, 32, 3), 10, outline=True).eval()
    chosen = select(model, work.plastic)
    assert len(chosen) == 6 * 4
    assert {name.rpartition(".")[2] for name in chosen} == {"qkv", "proj", "fc1", "fc2"}
    assert model(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 10)


def test_a_model_that_timm_does_not_know_is_refused():
    with pytest.raises(ProtocolError, match="Unknown model"):
        build_model("timm", {"model": "resnet18x"}, (32, 32, 3), 10)


# MLP


def test_mlp_has_no_biases_but_in_its_head():
    model = build("mlp", (1, 28, 28), widths=(30, 20))
    assert count(model.body) == 784 * 30 + 30 * 20
    assert count(model.head) == 20 * 10 + 10


@pytest.mark.parametrize(
    ("norm", "kinds"),
    [
        ("batch", ["BatchNorm1d", "Linear", "ReLU"]),
        ("layer", ["LayerNorm", "Linear", "ReLU"]),
        ("none", ["Linear", "ReLU"]),
    ],
)
def test_mlp_normalises_before_each_layer_without_affine(norm, kinds):
    model = build("mlp", (1, 8, 8), widths=(7, 6), norm=norm)
    assert [type(module).__name__ for module in model.body] == kinds * 2
    assert all(name.startswith("fc") for name, _ in model.body.named_parameters())


def test_mlp_may_use_tanh():
    model = build("mlp", (1, 8, 8), widths=(7,), activation="tanh")
    assert isinstance(model.body.act1, nn.Tanh)
    assert model.body(batch(model, (1, 8, 8))).abs().max() < 1


def test_a_single_width_is_one_hidden_layer_and_the_head_can_have_a_norm_of_its_own():
    model = build("mlp", (1, 8, 8), widths=5, norm="layer", head_norm="layer", dropout=0.5)
    assert [name for name, _ in model.body.named_children()] == ["norm1", "fc1", "act1"]
    assert [name for name, _ in model.head.named_children()] == ["norm", "dropout", "linear"]
    assert model.head.norm.normalized_shape == (5,)
    assert not list(model.head.norm.parameters())


def test_an_mlp_s_triangle_subtracts_the_mean_over_units():
    model = build("mlp", (1, 8, 8), widths=6, norm="none", activation="triangle")
    x = torch.randn(4, 64)
    u = x @ model.body.fc1.weight.T
    expected = torch.tensor([[max(0.0, float(v - row.mean())) for v in row] for row in u.detach()])
    torch.testing.assert_close(model.body(x).detach(), expected)
