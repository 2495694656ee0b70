"""Feedback paths against gradients computed by hand, layer by layer, without autograd where that is possible."""

from collections import OrderedDict
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hebbbench import Rule, registry
from hebbbench.errors import RuleError
from hebbbench.plasticity.feedback import Path, lay
from hebbbench.rng import generator
from hebbbench.training.learner import Learner

RANDOM_PATHS = [path for path in get_args(Path) if path != "exact"]


class Small(nn.Module):
    """Two hidden linear layers with relu, the second with a bias, and a read-out."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(
            OrderedDict(fc1=nn.Linear(5, 7, bias=False), a1=nn.ReLU(), fc2=nn.Linear(7, 6), a2=nn.ReLU())
        )
        self.head = nn.Linear(6, 3)
        self.double()

    def forward(self, x):
        return self.head(self.body(x))


def drawn(layer, index, seed=4):
    """The random matrix of a layer, from its definition: N(0, 1) times the standard deviation of the first weights."""
    return torch.randn(layer.weight.shape, generator=generator(seed, "feedback", index)).double() * layer.weight.std()


def by_hand(model, x, labels, backward):
    """Gradients of the mean cross-entropy, with `backward[i]` for layer i's weight on the way back.

    Of the three weights, then of the biases of the second layer and the read-out.
    """
    u1 = x @ model.body.fc1.weight.T
    y1 = u1.clamp_min(0)
    u2 = y1 @ model.body.fc2.weight.T + model.body.fc2.bias
    y2 = u2.clamp_min(0)
    logits = y2 @ model.head.weight.T + model.head.bias
    error = (logits.softmax(1) - F.one_hot(labels, 3)) / len(x)
    delta2 = (error @ backward[2]) * (u2 > 0)
    delta1 = (delta2 @ backward[1]) * (u1 > 0)
    return [delta1.T @ x, delta2.T @ y1, error.T @ y2, delta2.sum(0), error.sum(0)], error, (u1, u2)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return torch.randn(8, 5, dtype=torch.float64), torch.randint(3, (8,))


def gradients(model, x, labels):
    model.zero_grad()
    F.cross_entropy(model(x), labels).backward()
    fc1, fc2, head = layers(model)
    return [fc1.weight.grad, fc2.weight.grad, head.weight.grad, fc2.bias.grad, head.bias.grad]


def layers(model):
    return [model.body.fc1, model.body.fc2, model.head]


@pytest.mark.parametrize("path", ["random", "uniform_signs", "fixed_signs"])
def test_a_replaced_path_agrees_with_the_gradient_by_hand(path, batch):
    model = Small()
    matrices = []
    for index, layer in enumerate(layers(model)):
        random, sign = drawn(layer, index).detach(), layer.weight.detach().sign()
        replacement = {"random": random, "uniform_signs": layer.weight.std() * sign, "fixed_signs": random.abs() * sign}
        matrices.append(replacement[path].detach())
    lay(model, path, seed=4)
    expected, _, _ = by_hand(model, *batch, matrices)
    for found, wanted in zip(gradients(model, *batch), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


def test_direct_feedback_carries_the_output_error_to_every_layer(batch):
    x, labels = batch
    model = Small()
    lay(model, "direct", seed=4)
    _, error, (u1, u2) = by_hand(model, x, labels, [None, model.body.fc2.weight, model.head.weight])
    to2, to1 = (
        ((2 * torch.rand(3, size, generator=generator(4, "feedback", index)) - 1) / 3**0.5).double()
        for index, size in ((2, 6), (1, 7))
    )
    delta2, delta1 = (error @ to2) * (u2 > 0), (error @ to1) * (u1 > 0)
    y1, y2 = u1.clamp_min(0), u2.clamp_min(0)
    expected = [delta1.T @ x, delta2.T @ y1, error.T @ y2, delta2.sum(0), error.sum(0)]
    for found, wanted in zip(gradients(model, x, labels), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("path", RANDOM_PATHS)
def test_no_path_changes_the_forward_pass(path, batch):
    plain, other = Small(), Small()
    lay(other, path, seed=4)
    assert torch.equal(plain(batch[0]), other(batch[0]))


@pytest.mark.parametrize("path", RANDOM_PATHS)
def test_every_path_but_the_exact_one_changes_the_hidden_gradients_and_leaves_the_read_outs(path, batch):
    plain, other = Small(), Small()
    lay(other, path, seed=4)
    torch.manual_seed(3)
    exact, found = gradients(plain, *batch), gradients(other, *batch)
    assert not torch.allclose(exact[0], found[0])
    assert not torch.allclose(exact[1], found[1])
    torch.testing.assert_close(exact[2], found[2])
    torch.testing.assert_close(exact[4], found[4])


def test_batchwise_magnitudes_are_drawn_anew_and_fixed_ones_are_not(batch):
    for path, repeats in (("batchwise_signs", False), ("fixed_signs", True), ("random", True)):
        model = Small()
        lay(model, path, seed=4)
        first, second = gradients(model, *batch)[0].clone(), gradients(model, *batch)[0]
        assert torch.equal(first, second) == repeats


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_convolution_sends_the_transposed_convolution_with_the_other_kernel(mode, stride):
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3, stride=stride, padding=1, padding_mode=mode, bias=False).double()
    other = drawn(layer, 0).detach()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    wanted_x = x.detach().clone().requires_grad_()
    padded = F.pad(wanted_x, [1] * 4, mode="constant" if mode == "zeros" else mode)
    upstream = torch.randn_like(F.conv2d(padded, other, stride=stride))
    F.conv2d(padded, other, stride=stride).backward(upstream)
    exact = torch.autograd.grad(layer(x), layer.weight, upstream)[0]
    lay(nn.ModuleDict({"layer": layer}), "random", seed=4)
    layer(x).backward(upstream)
    torch.testing.assert_close(x.grad, wanted_x.grad, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(layer.weight.grad, exact)


def test_the_scale_is_that_of_the_weights_training_starts_from(lab):
    drawn_anew = lab.cell("usf", lab.protocol(), init={"law": "normal", "radius": 25.0})
    learner = Learner(drawn_anew, (1, 8, 8), 10, torch.device("cpu"))
    layer = learner.plasticity.layers[1].module
    x = torch.randn(3, layer.in_features, requires_grad=True)
    layer(x).sum().backward()
    weight = layer.weight.detach()
    torch.testing.assert_close(x.grad, (weight.std() * weight.sign()).sum(0).expand_as(x), rtol=1e-5, atol=1e-5)
    assert weight.std() > 1


def test_a_shortcut_around_a_layer_keeps_its_own_gradient():
    torch.manual_seed(0)
    layer = nn.Linear(4, 4, bias=False).double()
    other = drawn(layer, 0).detach()
    lay(nn.ModuleDict({"layer": layer}), "random", seed=4)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(3, 4, dtype=torch.float64)
    (x + layer(x)).backward(upstream)
    torch.testing.assert_close(x.grad, upstream + upstream @ other, rtol=1e-6, atol=1e-9)


class Backward(torch.autograd.Function):
    """A convolution written out: its own outer product, and another kernel to carry the error to its input."""

    @staticmethod
    def forward(ctx, x, weight, other, stride):
        ctx.save_for_backward(x, weight, other)
        ctx.stride = stride
        return F.conv2d(x, weight, stride=stride, padding=1)

    @staticmethod
    def backward(ctx, error):
        x, weight, other = ctx.saved_tensors
        return (
            nn.grad.conv2d_input(x.shape, other, error, stride=ctx.stride, padding=1),
            nn.grad.conv2d_weight(x, weight.shape, error, stride=ctx.stride, padding=1),
            None,
            None,
        )


def residual_by_hand(model, other, x, labels):
    """The loss of a small `resnet`, its convolutions' errors carried by `other`, shortcuts untouched."""

    def normed(u):
        return (u - u.mean((0, 2, 3), keepdim=True)) / (u.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()

    def convolve(layer, x, stride=1):
        return normed(Backward.apply(x, layer.weight, other[layer], stride))

    x = convolve(model.body.conv1, x).relu()
    for stage in (1, 2, 3):
        block = model.body.get_submodule(f"stage{stage}").block1
        stride = 1 if stage == 1 else 2
        y = convolve(block.conv2, convolve(block.conv1, x, stride).relu())
        if stage > 1:
            nothing = x.new_zeros(len(x), x.shape[1] // 2, x.shape[2] // 2, x.shape[3] // 2)
            x = torch.cat([nothing, x[:, :, ::2, ::2], nothing], 1)
        x = (x + y).relu()
    features = x.mean((2, 3))
    # The read-out too sends its error through its random matrix.
    carried = features.detach() @ model.head.weight.T + (features - features.detach()) @ other[model.head].T
    return F.cross_entropy(carried + model.head.bias, labels)


@pytest.mark.parametrize("path", ["exact", "random", "uniform_signs", "fixed_signs"])
def test_on_a_residual_network_errors_travel_by_the_other_kernels_and_by_the_shortcuts(path):
    torch.manual_seed(2)
    model = registry.architecture("resnet")((3, 8, 8), 3, depth=8, width=2).double()
    x, labels = torch.randn(5, 3, 8, 8, dtype=torch.float64), torch.randint(3, (5,))
    other = {}
    for index, layer in enumerate(module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)):
        weight, random = layer.weight.detach(), drawn(layer, index).detach()
        ways = {"exact": weight, "random": random, "fixed_signs": random.abs() * weight.sign()}
        other[layer] = ways.get(path, weight.std() * weight.sign())
    parameters = [*(layer.weight for layer in other), model.head.bias]
    expected = torch.autograd.grad(residual_by_hand(model, other, x, labels), parameters)
    lay(model, path, seed=4)
    F.cross_entropy(model(x), labels).backward()
    for parameter, wanted in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-5, atol=1e-9)


def test_direct_feedback_reaches_a_block_in_place_of_what_its_shortcut_would_carry():
    torch.manual_seed(2)
    model = registry.architecture("resnet")((3, 8, 8), 3, depth=8, width=2).double()
    lay(model, "direct", seed=4)
    seen = {}
    block = model.body.stage3.block1
    block.register_forward_pre_hook(lambda _, inputs: seen.update(x=inputs[0]))
    logits = model(torch.randn(5, 3, 8, 8, dtype=torch.float64))
    loss = F.cross_entropy(logits, torch.randint(3, (5,)))
    error, found = torch.autograd.grad(loss, [logits, seen["x"]])
    index = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)].index(block.conv1)
    matrix = (2 * torch.rand(3, seen["x"][0].numel(), generator=generator(4, "feedback", index)) - 1) / 3**0.5
    torch.testing.assert_close(found, (error @ matrix.double()).view_as(found), rtol=1e-6, atol=1e-9)


def test_a_path_that_does_not_exist_is_refused_when_the_class_is_made():
    with pytest.raises(RuleError, match=r"no feedback path 'randm'\. Did you mean 'random'"):

        class Wrong(Rule):
            feedback = "randm"

            def delta(self, grad):
                return -grad
