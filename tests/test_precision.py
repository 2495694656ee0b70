"""Products in bfloat16: what a rule sees stays float32, and the update is close to the exact one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hebbbench import Rule, registry
from hebbbench.cell import cells
from hebbbench.errors import ProtocolError
from hebbbench.plasticity import routes, signals
from hebbbench.plasticity.attach import Plasticity
from hebbbench.plasticity.routes import USUAL
from hebbbench.plasticity.signals import pre_of
from hebbbench.protocol import Protocol
from hebbbench.recipe import Recipe
from hebbbench.training.learner import Learner

DEVICE = torch.device("cpu")


def protocol(name: str, **changes: Any) -> Protocol:
    return Protocol.model_validate({**registry.protocol(name).model_dump(mode="json"), **changes})


def learner(name: str, rule: str, precision: str) -> Learner:
    (cell,) = cells(protocol(name, precision=precision), [rule], [0], {})
    return Learner(cell, (8, 8, 1), 10, DEVICE)


def batch(name: str) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    images = torch.randn(32, 1, 8, 8, generator=source)
    return (images if "deephebb" in name else images.flatten(1)), torch.arange(32) % 10


class Watch(Rule):
    def delta(self, pre: Any, post: Tensor, weight: Tensor) -> Tensor:
        assert (post.dtype, weight.dtype, pre.rows.dtype, pre.squared_norm.dtype) == (torch.float32,) * 4
        assert not torch.is_autocast_enabled("cpu")
        update: Tensor = pre.outer(post)
        assert update.dtype == torch.float32
        return update


@pytest.mark.parametrize("layer", [nn.Linear(6, 4), nn.Conv2d(2, 4, 3, padding=1)], ids=["linear", "conv"])
def test_a_rule_sees_float32_whatever_the_products_are_in(layer):
    model = nn.Sequential(layer)
    x = torch.randn(5, 6) if isinstance(layer, nn.Linear) else torch.randn(2, 2, 5, 5)
    plasticity = Plasticity(model, ["0"], Watch, {})
    with torch.no_grad(), plasticity.learning(torch.zeros(len(x)).long()), torch.autocast("cpu", torch.bfloat16):
        assert model(x).dtype == torch.bfloat16
    assert layer.weight.grad is not None


@pytest.mark.parametrize("layer", [nn.Linear(60, 16), nn.Conv2d(8, 16, 3, padding=1)], ids=["linear", "conv"])
def test_the_outer_product_in_bfloat16_is_close(layer):
    source = torch.Generator().manual_seed(1)
    linear = isinstance(layer, nn.Linear)
    x = torch.randn(*((64, 60) if linear else (8, 8, 8, 8)), generator=source)
    u = layer(x).detach()
    a = F.softmax(torch.randn(u.numel() // 16, 16, generator=source), dim=1)
    exact = pre_of(x, u, layer).outer(a)
    mixed = pre_of(x, u.bfloat16(), layer).outer(a)
    assert 0 < (mixed - exact).abs().max() <= 1e-2 * exact.abs().max()


@pytest.mark.parametrize("name", ["digits-mlp", "digits-deephebb"])
@pytest.mark.parametrize("rule", ["bp", "softhebb", "oja"])
def test_a_step_in_bfloat16_is_close_to_one_in_float32(name, rule):
    steps = {}
    for precision in ("float32", "bfloat16"):
        own = learner(name, rule, precision)
        before = [weight.detach().clone() for weight in own.plasticity.weights()]
        own.step(*batch(name), 0, 0.0)
        after = own.plasticity.weights()
        assert all(weight.dtype == torch.float32 for weight in after)
        steps[precision] = torch.cat([(new - old).detach().flatten() for new, old in zip(after, before, strict=True)])
    similarity = F.cosine_similarity(steps["float32"], steps["bfloat16"], dim=0).item()
    assert 0.99 < similarity < 1


@pytest.mark.parametrize(("rule", "close"), [("softhebb", 1e-3), ("ghl", 1e-2), ("swta_fh", 1e-2)])
@pytest.mark.parametrize("name", ["digits-mlp", "digits-deephebb"])
def test_with_mixed_precision_a_rule_has_the_same_winners_and_nearly_the_same_update(name, rule, close):
    updates = {}
    for precision in ("float32", "mixed"):
        own = learner(name, rule, precision)
        own.find_update(*batch(name))
        updates[precision] = [weight.grad for weight in own.plasticity.weights()]
    for exact, mixed in zip(updates["float32"], updates["mixed"], strict=True):
        assert mixed.dtype == torch.float32
        assert 0 < (mixed - exact).abs().max() <= close * exact.abs().max()


def test_mixed_precision_leaves_backprop_as_it_is():
    digests = set()
    for precision in ("float32", "mixed"):
        own = learner("digits-deephebb", "bp", precision)
        own.step(*batch("digits-deephebb"), 0, 0.0)
        digests.add(own.digest())
    assert len(digests) == 1


def test_precision_is_part_of_a_protocols_identity():
    assert protocol("digits-mlp").hash == registry.protocol("digits-mlp").hash
    assert protocol("digits-mlp", precision="bfloat16").hash != registry.protocol("digits-mlp").hash


def test_a_procedure_that_settles_is_refused_in_bfloat16():
    with pytest.raises(ProtocolError, match=r"precision = 'bfloat16': rule PredictiveCoding .* in float32"):
        learner("digits-mlp", "pc", "bfloat16")


def test_scoring_stays_in_float32():
    own = learner("digits-mlp", "bp", "bfloat16")
    x, _ = batch("digits-mlp")
    assert own.features(x).dtype == torch.float32
    assert torch.equal(own.logits(x), own.model.eval()(x))


LAYERS = {
    "plain": nn.Conv2d(3, 5, 3, bias=False),
    "padded": nn.Conv2d(3, 5, (3, 1), padding=(2, 1), bias=False),
    "reflected": nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect", bias=False),
    "strided": nn.Conv2d(3, 5, (2, 3), stride=(3, 2), padding="valid", bias=False),
    "dilated": nn.Conv2d(3, 5, 3, dilation=(1, 2), padding="same", bias=False),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_way_gives_the_outer_product(name):
    layer = copy.deepcopy(LAYERS[name]).double().to(memory_format=torch.channels_last)
    source = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 8, 9, generator=source, dtype=torch.float64)
    output = layer(x).detach()
    a = torch.randn(output.numel() // 5, 5, generator=source, dtype=torch.float64)
    pre = pre_of(x, output, layer)
    torch.testing.assert_close(pre.rows, unfolded(x, layer), rtol=0, atol=0)
    expected = a.T @ unfolded(x, layer)
    ways = {}

    def take(key, work, offered, like):
        assert work == 5 * pre.rows.numel()
        ways.update({way: product() for way, product in offered.items()})
        return offered[USUAL]()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signals.ROUTES, "take", take)
        torch.testing.assert_close(pre.outer(a), expected / pre.count, rtol=1e-12, atol=1e-14)
    assert set(ways) == {USUAL, "patches", "shifts", "swapped"}
    for product in ways.values():
        torch.testing.assert_close(product, expected, rtol=1e-12, atol=1e-13)


def unfolded(x: Tensor, layer: nn.Conv2d) -> Tensor:
    """Patches by the library, (B, in), in the order of channels-last kernels."""
    top, left = layer.padding if isinstance(layer.padding, tuple) else (0, 0)
    if layer.padding == "same":
        top, left = (d * (k - 1) // 2 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    patches = F.unfold(
        F.pad(x, (left, left, top, top), mode=mode), layer.kernel_size, dilation=layer.dilation, stride=layer.stride
    )
    return patches.unflatten(1, (x.shape[1], -1)).permute(0, 3, 2, 1).flatten(2).flatten(0, 1)


@pytest.mark.parametrize("way", [USUAL, "patches", "shifts", "swapped"])
def test_the_way_chosen_is_taken_in_bfloat16(way, monkeypatch):
    layer = nn.Conv2d(96, 256, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    x = torch.randn(3, 96, 2, 2, generator=torch.Generator().manual_seed(0))
    output = layer(x).detach()
    a = torch.rand(12, 256, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(routes, "LEAST", 0)
    monkeypatch.setattr(signals.ROUTES, "chosen", {"(256, 96, 3, 3) on 2×2 in torch.bfloat16": way})
    if way != USUAL:
        monkeypatch.setattr(signals, "weight_gradient", None)
    found = pre_of(x, output.bfloat16(), layer).outer(a)
    exact = a.T @ unfolded(x, layer) / 12
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 0.02 * exact.abs().max()


class AsOnCuda(TorchFunctionMode):
    """Autocast on a CPU, with what CUDA's computes in float32 in float32, too: norms over units, powers, sums."""

    FLOAT32 = frozenset({Tensor.pow, torch.pow, F.layer_norm, torch.layer_norm, Tensor.softmax, F.softmax, Tensor.sum})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.FLOAT32 and torch.is_autocast_enabled("cpu"):
            args = tuple(x.float() if isinstance(x, Tensor) and x.dtype == torch.bfloat16 else x for x in args)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("rule", ["bp", "fa", "usf", "brsf", "dfa", "ghl_fa", "sign_fa", "ghl", "softhebb"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp", {"widths": [16, 12], "norm": "layer", "head_norm": "layer"}),
        ("deephebb", {"widths": [8, 8, 8], "activation": "triangle", "padding": "reflect"}),
    ],
)
def test_where_a_network_mixes_precisions_as_on_a_gpu_every_path_goes_through(name, options, rule):
    """A layer's error may then be bfloat16 and its input float32."""
    architecture = {"name": name, "options": options}
    base = f"digits-{name}"
    changed = protocol(base, precision="bfloat16", free=["optimizer"], architecture=architecture)
    (cell,) = cells(
        changed, [rule], [0], {}, Recipe.model_validate({"provenance": "default", "optimizer": {"lr": 0.01}})
    )
    x, labels = batch(name)
    with AsOnCuda():
        own = Learner(cell, (8, 8, 1), 10, DEVICE)
        own.step(x, labels, 0, 0.0)
        own.features(x)
    assert own.diverged() is None
