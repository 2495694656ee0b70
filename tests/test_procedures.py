"""Whole-network procedures: each `step` rule against loops over samples, the chain it runs on, and its training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hebbbench import Chain, Rule, draw_counter, registry, run, uniform
from hebbbench.checks import measured_card
from hebbbench.checks.network import build_learner, toy_cell
from hebbbench.errors import HebbBenchError, ProtocolError, RuleError
from hebbbench.plasticity.procedure import Procedure

Array = np.ndarray
Weights = tuple[Array, Array, Array, Array]
"""w1 (4, 6), w2 (5, 4), and the read-out's weight (3, 5) and bias (3,)."""

CLASSES = 3


class Net(nn.Module):
    """fc1 → tanh → fc2 → tanh → read-out, float64."""

    def __init__(self, *front: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential()
        for index, module in enumerate(front):
            self.body.add_module(f"front{index}", module)
        self.body.add_module("fc1", nn.Linear(6, 4, bias=False))
        self.body.add_module("act1", nn.Tanh())
        self.body.add_module("fc2", nn.Linear(4, 5, bias=False))
        self.body.add_module("act2", nn.Tanh())
        self.head = nn.Linear(5, CLASSES)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def weights(self) -> Weights:
        parts = (self.body.fc1.weight, self.body.fc2.weight, self.head.weight, self.head.bias)
        return tuple(part.detach().numpy().copy() for part in parts)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(7, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


LABELS = torch.arange(7) % CLASSES


def softmax(a: Array) -> Array:
    e = np.exp(a - a.max())
    return e / e.sum()


def target(label: int) -> Array:
    return np.eye(CLASSES)[label]


# The references: one sample at a time, every derivative written out


def reference_pc(weights: Weights, x: Array, label: int, *, steps: int, rate: float) -> list[Array]:
    w1, w2, v, b = weights
    h1 = np.tanh(w1 @ x)
    h2 = np.tanh(w2 @ h1)
    for _ in range(steps):
        e1, e2 = h1 - np.tanh(w1 @ x), h2 - np.tanh(w2 @ h1)
        slope1 = e1 - w2.T @ ((1 - np.tanh(w2 @ h1) ** 2) * e2)
        slope2 = e2 + v.T @ (softmax(v @ h2 + b) - target(label))
        h1, h2 = h1 - rate * slope1, h2 - rate * slope2
    e1, e2 = h1 - np.tanh(w1 @ x), h2 - np.tanh(w2 @ h1)
    return [
        np.outer(e1 * (1 - np.tanh(w1 @ x) ** 2), x),
        np.outer(e2 * (1 - np.tanh(w2 @ h1) ** 2), h1),
        -np.outer(softmax(v @ h2 + b) - target(label), h2),
    ]


def reference_ep(
    weights: Weights, x: Array, label: int, *, nudge: float, free_steps: int, nudged_steps: int
) -> list[Array]:
    w1, w2, v, b = weights

    def rho(a: Array) -> Array:
        return np.minimum(np.maximum(a, 0), 1)

    def settle(s1: Array, s2: Array, steps: int, beta: float) -> tuple[Array, Array]:
        for _ in range(steps):
            error = softmax(v @ s2 + b) - target(label)
            s1, s2 = rho(w1 @ x + w2.T @ s2), rho(w2 @ s1 - beta * v.T @ error)
        return s1, s2

    start = rho(w1 @ x)
    f1, f2 = settle(start, rho(w2 @ start), free_steps, 0.0)
    p1, p2 = settle(f1, f2, nudged_steps, nudge)
    m1, m2 = settle(f1, f2, nudged_steps, -nudge)
    return [
        np.outer(p1 - m1, x) / (2 * nudge),
        (np.outer(p2, p1) - np.outer(m2, m1)) / (2 * nudge),
        -np.outer(softmax(v @ f2 + b) - target(label), f2),
    ]


def reference_pepita(weights: Weights, x: Array, label: int, *, scale: float) -> list[Array]:
    w1, w2, v, b = weights
    bound = scale * np.sqrt(6 / len(x))
    drawn = uniform((CLASSES, len(x)), draw_counter(torch.tensor(w1))).double().numpy()
    y1 = np.tanh(w1 @ x)
    y2 = np.tanh(w2 @ y1)
    e = softmax(v @ y2 + b) - target(label)
    bent = x + bound * drawn.T @ e
    z1 = np.tanh(w1 @ bent)
    z2 = np.tanh(w2 @ z1)
    return [-np.outer(y1 - z1, bent), -np.outer(y2 - z2, z1), -np.outer(e, z2)]


def reference_dtp(weights: Weights, x: Array, label: int, *, target_rate: float, **_: float) -> list[Array]:
    w1, w2, v, b = weights
    back1, back2 = first_inverses(w1)
    h1 = np.tanh(w1 @ x)
    h2 = np.tanh(w2 @ h1)
    o = v @ h2 + b
    error = softmax(o) - target(label)
    t2 = h2 - np.tanh(back2 @ o) + np.tanh(back2 @ (o - target_rate * error))
    t1 = h1 - np.tanh(back1 @ h2) + np.tanh(back1 @ t2)
    return [
        np.outer((t1 - h1) * (1 - h1**2), x) / target_rate,
        np.outer((t2 - h2) * (1 - h2**2), h1) / target_rate,
        -np.outer(error, h2),
    ]


def first_inverses(w1: Array) -> tuple[Array, Array]:
    """From h_2 to h_1 and from the answers to h_2: uniform, of variance 1 / fan-in."""
    counter = draw_counter(torch.tensor(w1))
    shapes = ((4, 5), (5, CLASSES))
    back1, back2 = (uniform(shape, counter).double().numpy() * np.sqrt(3 / shape[1]) for shape in shapes)
    return back1, back2


def reference_ff(weights: Weights, x: Array, label: int, *, threshold: float, index: int) -> list[Array]:
    w1, w2, v, b = weights

    def unit(h: Array) -> Array:
        return h / (np.sqrt(np.mean(h**2)) + 1e-8)

    def shown(told: Array) -> tuple[Array, Array, Array, Array]:
        seen = unit(np.concatenate([told, x[CLASSES:]]))
        y1 = np.tanh(w1 @ seen)
        below = unit(y1)
        return seen, y1, below, np.tanh(w2 @ below)

    drawn = (uniform((len(LABELS),), draw_counter(torch.tensor(w1))).double().numpy() + 1) / 2
    other = (label + 1 + min(int(drawn[index] * (CLASSES - 1)), CLASSES - 2)) % CLASSES
    deltas = [np.zeros_like(w1), np.zeros_like(w2)]
    for told, side in ((target(label), 1.0), (target(other), -1.0)):
        seen, y1, below, y2 = shown(told)
        for delta, y, pre in ((deltas[0], y1, seen), (deltas[1], y2, below)):
            gate = 1 / (1 + np.exp(-side * (threshold - np.mean(y**2))))
            delta += side * gate * np.outer(2 * y / len(y) * (1 - y**2), pre)
    h = shown(np.full(CLASSES, 1 / CLASSES))[3]
    return [*deltas, -np.outer(softmax(v @ h + b) - target(label), h)]


def projections(w1: Array, sizes: tuple[int, ...]) -> list[Array]:
    """One matrix (classes, entries) a layer, uniform on [−1, 1], drawn one after the other."""
    counter = draw_counter(torch.tensor(w1))
    return [uniform((CLASSES, size), counter).double().numpy() for size in sizes]


def reference_drtp(weights: Weights, x: Array, label: int) -> list[Array]:
    w1, w2, v, b = weights
    h1 = np.tanh(w1 @ x)
    h2 = np.tanh(w2 @ h1)
    to1, to2 = (matrix[label] / np.sqrt(CLASSES) for matrix in projections(w1, (4, 5)))
    head = -np.outer(softmax(v @ h2 + b) - target(label), h2)
    return [-np.outer(to1 * (1 - h1**2), x), -np.outer(to2 * (1 - h2**2), h1), head]


def reference_local_errors(weights: Weights, x: Array, label: int) -> list[Array]:
    w1, w2, v, b = weights
    h1 = np.tanh(w1 @ x)
    h2 = np.tanh(w2 @ h1)
    deltas = []
    for h, pre, drawn in zip((h1, h2), (x, h1), projections(w1, (4, 5)), strict=True):
        readout = drawn * np.sqrt(3 / len(h))
        e = softmax(readout @ h) - target(label)
        deltas.append(-np.outer(readout.T @ e * (1 - h**2), pre))
    return [*deltas, -np.outer(softmax(v @ h2 + b) - target(label), h2)]


def reference_node_perturbation(weights: Weights, x: Array, label: int, *, noise: float, index: int) -> list[Array]:
    w1, w2, v, b = weights
    counter = draw_counter(torch.tensor(w1))
    drawn1, drawn2 = (uniform((len(LABELS), size), counter).double().numpy()[index] for size in (4, 5))
    xi1, xi2 = noise * np.sqrt(3) * drawn1, noise * np.sqrt(3) * drawn2
    h2 = np.tanh(w2 @ np.tanh(w1 @ x))
    shaken1 = np.tanh(w1 @ x + xi1)
    shaken2 = np.tanh(w2 @ shaken1 + xi2)
    before, after = (-np.log(softmax(v @ h + b)[label]) for h in (h2, shaken2))
    blame = (after - before) / noise**2
    head = -np.outer(softmax(v @ h2 + b) - target(label), h2)
    return [-blame * np.outer(xi1, x), -blame * np.outer(xi2, shaken1), head]


def reference_forward_gradient(weights: Weights, x: Array, label: int) -> list[Array]:
    """One sample's part: how its loss rises along V, by the chain rule from the input upwards, times −V."""
    w1, w2, v, b = weights
    counter = draw_counter(torch.tensor(w1))
    v1, v2 = (np.sqrt(3) * uniform(w.shape, counter).double().numpy() for w in (w1, w2))
    h1 = np.tanh(w1 @ x)
    h2 = np.tanh(w2 @ h1)
    moved1 = (1 - h1**2) * (v1 @ x)
    moved2 = (1 - h2**2) * (v2 @ h1 + w2 @ moved1)
    e = softmax(v @ h2 + b) - target(label)
    slope = e @ v @ moved2
    return [-slope * v1, -slope * v2, -np.outer(e, h2)]


REFERENCES: dict[str, Callable[..., list[Array]]] = {
    "pc": reference_pc,
    "ep": reference_ep,
    "pepita": reference_pepita,
    "ff": reference_ff,
    "dtp": reference_dtp,
    "drtp": reference_drtp,
    "local_errors": reference_local_errors,
    "node_perturbation": reference_node_perturbation,
    "forward_gradient": reference_forward_gradient,
}
BY_PLACE = {"ff", "node_perturbation"}
"""What they draw is drawn for the batch, a row for each place."""

CASES: list[tuple[str, dict[str, Any]]] = [
    ("pc", {}),
    ("pc", {"steps": 3, "rate": 0.3}),
    ("ep", {}),
    ("ep", {"nudge": 0.1, "free_steps": 5, "nudged_steps": 2}),
    ("pepita", {}),
    ("pepita", {"scale": 1.5}),
    ("ff", {}),
    ("ff", {"threshold": 0.3}),
    ("dtp", {}),
    ("dtp", {"target_rate": 1.5}),
    ("drtp", {}),
    ("local_errors", {}),
    ("node_perturbation", {}),
    ("node_perturbation", {"noise": 0.5}),
    ("forward_gradient", {}),
]


def procedure(rule: str | type[Rule], model: nn.Module, **hyperparameters: Any) -> Procedure:
    kind = registry.rule(rule) if isinstance(rule, str) else rule
    return Procedure(kind(**hyperparameters), model)


@pytest.mark.parametrize(("rule", "hyperparameters"), CASES, ids=str)
def test_a_procedure_is_its_reference(rule, hyperparameters, x):
    model = Net()
    own = procedure(rule, model, **hyperparameters)
    own.run(x, LABELS)
    options = own.rule.model_dump()
    each = []
    for index, (row, label) in enumerate(zip(x.numpy(), LABELS.tolist(), strict=True)):
        place = {"index": index} if rule in BY_PLACE else {}
        each.append(REFERENCES[rule](model.weights(), row, label, **options, **place))
    for layer, parts in zip((model.body.fc1, model.body.fc2, model.head), zip(*each, strict=True), strict=True):
        np.testing.assert_allclose(-layer.weight.grad.numpy(), np.mean(parts, axis=0), rtol=0, atol=1e-12)


def test_every_procedure_of_the_registry_has_a_reference():
    assert set(REFERENCES) == {name for name in registry.rule_names() if registry.rule(name).shape == "step"}


def test_settled_and_weakly_nudged_equilibrium_propagation_follows_the_loss(x):
    """The theorem of Scellier & Bengio: at the fixed point the contrast is the loss's gradient, as β goes to 0."""
    model = Net()
    with torch.no_grad():  # weak feedback, so that the network settles within the clipped range
        model.body.fc1.weight.mul_(0.5).add_(0.1 * x[0].sign())
        model.body.fc2.weight.mul_(0.5).abs_()
    own = procedure("ep", model, nudge=1e-4, free_steps=400, nudged_steps=400)
    own.run(x[:1], LABELS[:1])
    gradient = model.body.fc2.weight.grad.clone()

    def loss() -> float:
        return F.cross_entropy(model.head(own.features(x[:1])), LABELS[:1]).item()

    for unit, synapse in ((0, 0), (3, 2), (4, 1)):
        ends = []
        for shift in (1e-5, -1e-5):
            with torch.no_grad():
                model.body.fc2.weight[unit, synapse] += shift
                ends.append(loss())
                model.body.fc2.weight[unit, synapse] -= shift
        assert gradient[unit, synapse].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3, abs=1e-7)


def test_predictive_coding_near_its_start_is_backprop(x):
    """Two short steps carry the error one layer down as the chain rule does (Whittington & Bogacz 2017)."""
    model, rate = Net(), 1e-4
    procedure("pc", model, steps=2, rate=rate).run(x, LABELS)
    ours = model.body.fc1.weight.grad / rate**2, model.body.fc2.weight.grad / (2 * rate)
    model.zero_grad()
    F.cross_entropy(model(x), LABELS).backward()
    for got, wanted in zip(ours, (model.body.fc1.weight.grad, model.body.fc2.weight.grad), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("rule", ["node_perturbation", "forward_gradient"])
def test_on_average_a_perturbation_finds_the_gradient(rule, x):
    model = Net()
    options = {"noise": 1e-3} if rule == "node_perturbation" else {}
    own = procedure(rule, model, **options)
    for _ in range(1000):  # gradients add up
        own.run(x, LABELS)
    found = [layer.weight.grad / 1000 for layer in (model.body.fc1, model.body.fc2)]
    model.zero_grad()
    F.cross_entropy(model(x), LABELS).backward()
    for got, layer in zip(found, (model.body.fc1, model.body.fc2), strict=True):
        exact = layer.weight.grad
        assert F.cosine_similarity(got.flatten(), exact.flatten(), dim=0) > 0.95
        assert (got * exact).sum() / exact.square().sum() == pytest.approx(1, abs=0.1)


# The chain


def test_inverses_in_target_propagation_learn_from_noisy_activity(x):
    model = Net()
    own = procedure("dtp", model, noise=0.3, inverse_rate=0.7)
    w1, w2, v, b = model.weights()
    back1, back2 = first_inverses(w1)
    counter = own.state["seed"].clone()
    noise2, noise1 = (0.3 * np.sqrt(3) * uniform((len(x), size), counter).double().numpy() for size in (5, 4))
    own.run(x, LABELS)

    def learned(back: Array, lows: list[Array], highs: list[Array]) -> Array:
        slope, energy = np.zeros_like(back), 0.0
        for low, high in zip(lows, highs, strict=True):
            guess = np.tanh(back @ high)
            slope += np.outer((guess - low) * (1 - guess**2), high)
            energy += high @ high
        return back - 0.7 * slope / energy

    h1 = [np.tanh(w1 @ row) for row in x.numpy()]
    low1 = [h + noise for h, noise in zip(h1, noise1, strict=True)]
    low2 = [np.tanh(w2 @ h) + noise for h, noise in zip(h1, noise2, strict=True)]
    expected = {
        "1": learned(back1, low1, [np.tanh(w2 @ low) for low in low1]),
        "2": learned(back2, low2, [v @ low + b for low in low2]),
    }
    for name, inverse in expected.items():
        np.testing.assert_allclose(own.state[name].numpy(), inverse, rtol=0, atol=1e-12)
    assert own.state["seed"] == counter


def test_inverses_in_target_propagation_come_to_invert(x):
    """The next layer's activity says more and more about the one before, also through pooling and convolution."""
    torch.manual_seed(0)
    first = [nn.Conv2d(2, 6, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2)]
    second = [nn.Conv2d(6, 8, 3, padding=1), nn.Tanh(), nn.Flatten()]
    network = Chain(nn.ModuleDict({"body": nn.Sequential(*first, *second), "head": nn.Linear(8 * 16, CLASSES)}))
    rule = registry.rule("dtp")()
    with torch.no_grad():
        state = rule.begin(network)
    low = network.forward(torch.randn(7, 2, 8, 8))[1]

    def miss() -> float:
        guess = rule.invert(network.blocks[0], state["1"], network.blocks[1](low), low)
        return (guess - low).square().mean().item()

    before = miss()
    for _ in range(100):
        rule.learn_inverse(*network.blocks, state["1"], low, state["seed"])
    assert miss() < 0.7 * before


def test_the_chain_is_cut_before_every_linear_map_and_its_normalisation():
    model = registry.architecture("deephebb")(
        input_shape=(1, 8, 8), classes=3, widths=(4, 6, 8), kernels=(3, 3, 3), dropout=0.0
    )
    blocks = Chain(model).blocks
    assert [block.name for block in blocks] == ["conv1", "conv2", "conv3"]
    parts = [[type(module).__name__ for part in (b.prepare, b.fire, b.reduce) for module in part] for b in blocks]
    assert parts == [["BatchNorm2d", "ReLU", "MaxPool2d"]] * 2 + [["BatchNorm2d", "ReLU", "AvgPool2d", "Flatten"]]


def test_what_stands_between_a_map_and_its_nonlinearity_belongs_to_the_block():
    model = registry.architecture("vgg")(input_shape=(3, 32, 32), classes=3, width=1, hidden=4)
    blocks = {block.name: block for block in Chain(model).blocks}
    parts = [[type(module).__name__ for module in part] for b in blocks.values() for part in (b.prepare, b.fire)]
    assert parts == [[], ["BatchNorm2d", "ReLU"]] * 13 + [[], ["ReLU"]] * 2
    reduced = {name: [type(module).__name__ for module in block.reduce] for name, block in blocks.items()}
    assert [reduced[name] for name in ("conv1", "conv2", "conv13")] == [[], ["MaxPool2d"], ["MaxPool2d", "Flatten"]]
    assert [reduced[name] for name in ("fc14", "fc15")] == [["Dropout"], []]


NETWORKS = {
    "mlp": ("mlp", {}),
    "deephebb": ("deephebb", {"widths": (4, 5, 6)}),
    "triangle": ("deephebb", {"widths": (4, 5, 6), "activation": "triangle"}),
    "fasthebb": ("fasthebb", {"widths": (4, 4, 4, 5), "hidden": 6}),
    "vgg": ("vgg", {"width": 2, "hidden": 8}),
}


def network(name, dropout=0.0, size=32):
    torch.manual_seed(0)
    architecture, options = NETWORKS[name]
    return registry.architecture(architecture)(input_shape=(3, size, size), classes=3, dropout=dropout, **options)


@pytest.mark.parametrize("rule", REFERENCES)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_procedure_moves_every_map_of_every_chain(rule, name):
    model = network(name)
    images = torch.rand(6, 3, 32, 32)
    own = procedure(rule, model)
    x = images if model.layout == "image" else images.flatten(1)
    if (rule, name) == ("forward_gradient", "triangle"):
        with pytest.raises(RuleError, match=r"'conv1' raises its activation to a power of 0.7.*activation: relu"):
            own.run(x, LABELS[:6])
        return
    own.run(x, LABELS[:6])
    for block in own.network.blocks:
        assert block.map.weight.grad.isfinite().all(), block.name
        # Activity may be zero throughout, and twenty short steps carry no error down fifteen layers in float32.
        assert block.map.weight.grad.any() or rule in ("ep", "ff") or (rule, name) == ("pc", "vgg"), block.name


def test_a_step_draws_one_mask_and_the_next_step_another():
    class Passes(Rule):
        def step(self, network: Chain, input: Tensor) -> Tensor:
            ones = torch.ones(6, 6 * 4 * 4)
            masks.append([network.head.dropout(ones) for _ in range(3)])
            return network.head(network.forward(input)[-1]).sum()

    masks: list[list[Tensor]] = []
    model = network("deephebb", dropout=0.5)
    own = Procedure(Passes(), model)
    for _ in range(2):
        own.run(torch.rand(6, 3, 32, 32), LABELS[:6])
    assert "forward" not in vars(model.head.dropout)
    torch.manual_seed(7)
    alone = model.head.dropout(torch.ones(6, 6 * 4 * 4))  # as a network that repeats the step draws it
    torch.manual_seed(7)
    own.run(torch.rand(6, 3, 32, 32, generator=torch.Generator()), LABELS[:6])
    assert torch.equal(masks.pop()[0], alone)
    for first, *others in masks:
        assert {0.0, 2.0} == set(first.unique().tolist())
        assert all(torch.equal(first, other) for other in others)
    assert not torch.equal(masks[0][0], masks[1][0])
    assert not torch.equal(model.head.dropout(torch.ones(99)), model.head.dropout(torch.ones(99)))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_chain_is_the_network(name):
    model = network(name)
    model.eval()
    images = torch.randn(2, 3, 32, 32)
    x = images if model.layout == "image" else images.flatten(1)
    chain = Chain(model)
    assert torch.equal(chain.head(chain.forward(x)[-1]), model(x))


def test_a_network_that_is_no_chain_is_refused():
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.ModuleDict({"a": nn.Linear(2, 2)})
            self.head = nn.Linear(2, 2)

    with pytest.raises(RuleError, match="needs a chain of layers"):
        Chain(Forked())
    nested = Net(nn.Sequential(nn.Linear(6, 6)))
    with pytest.raises(RuleError, match="'front0' holds linear maps inside"):
        Chain(nested)


# In the harness


def test_only_the_first_pass_of_a_step_moves_running_statistics(x):
    model = Net(nn.BatchNorm1d(6, affine=False))
    procedure("pc", model, steps=5).run(x, LABELS)
    norm = model.body.front0
    torch.testing.assert_close(norm.running_mean, 0.1 * x.mean(0))
    assert norm.momentum == 0.1


def test_the_loss_reported_is_that_of_the_first_answer(x):
    for rule in REFERENCES:
        model = Net()
        wanted = F.cross_entropy(model(x), LABELS).item()
        loss = procedure(rule, model).run(x, LABELS)
        if rule not in ("ep", "ff"):  # they answer from a fixed point, and with a neutral label
            assert loss.item() == pytest.approx(wanted)
        assert loss.item() > 0


class Silent(Rule):
    def step(self, network: Chain) -> Tensor:
        return torch.zeros(())


class Backprop(Rule):
    def step(self, network: Chain, input: Tensor, labels: Tensor) -> Tensor:
        h = input
        for block in network.blocks:
            h = block(h)
        return F.cross_entropy(network.head(h), labels)


def test_a_step_that_depends_on_no_weight_is_refused(x):
    with pytest.raises(RuleError, match="step must return a scalar tensor that depends on the weights"):
        procedure(Silent, Net()).run(x, LABELS)


def test_a_procedure_that_backpropagates_gives_backprops_gradient_and_says_so(x, tmp_path: Path):
    model = Net()
    procedure(Backprop, model).run(x, LABELS)
    ours = model.body.fc1.weight.grad.clone()
    model.zero_grad()
    F.cross_entropy(model(x), LABELS).backward()
    torch.testing.assert_close(ours, model.body.fc1.weight.grad)
    path = tmp_path / "smuggler.py"
    path.write_text(
        "import torch.nn.functional as F\nfrom hebbbench import Rule\n\n\nclass Smuggler(Rule):\n"
        "    def step(self, network, input, labels):\n        for block in network.blocks:\n"
        "            input = block(input)\n        return F.cross_entropy(network.head(input), labels)\n"
    )
    card = measured_card(str(path))
    assert (card.needs_backward_pass, card.transports_weights, card.needs_phases) == (True, True, False)


@pytest.mark.parametrize(
    ("rule", "phases", "transport", "locked"),
    [
        ("pc", True, True, True),
        ("ep", True, True, True),
        ("pepita", True, False, True),
        ("ff", True, False, False),
        ("dtp", True, False, True),
        ("drtp", False, False, False),
        ("local_errors", False, False, False),
        ("node_perturbation", True, False, True),
        ("forward_gradient", False, False, True),
    ],
)
def test_the_card_of_a_procedure_is_measured(rule, phases, transport, locked):
    card = measured_card(rule)
    assert (card.locality, card.uses_labels, card.needs_backward_pass) == ("global", True, False)
    assert (card.needs_phases, card.transports_weights, card.update_locked) == (phases, transport, locked)
    assert card.sees_later_layers == locked
    assert card.sees_earlier_layers is None


def test_a_layerwise_schedule_is_refused():
    recipe = {"provenance": "default", "schedule": "layerwise"}
    with pytest.raises(ProtocolError, match=r"schedule = 'layerwise': rule PredictiveCoding .* Choose schedule: joint"):
        run("digits-mlp", "pc", recipe=recipe)


def test_one_value_a_layer_is_refused():
    with pytest.raises(HebbBenchError, match="the whole network"):
        run("digits-mlp", "pc", recipe={"provenance": "default", "hyperparameters": {"rate": [0.1, 0.2]}})


def test_the_probe_reads_what_equilibrium_propagation_settles_to():
    learner = build_learner(toy_cell("ep", {}, (8, 6), 0.1, 0), 10, 3, torch.float32)
    x = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    features = learner.features(x)
    assert features.shape == (4, 6)
    assert features.min() >= 0
    assert features.max() <= 1
    assert not torch.allclose(features, learner.model.body(x))
    assert torch.equal(learner.logits(x), learner.model.head(features))


# Shapes of rules


def test_a_rule_has_one_equation():
    with pytest.raises(RuleError, match=r"rule Both has one equation: .* It defines delta and loss"):

        class Both(Rule):
            def delta(self, weight: Tensor) -> Tensor:
                return weight

            def loss(self, weight: Tensor) -> Tensor:
                return weight.sum()


def test_a_step_names_signals_that_exist():
    with pytest.raises(RuleError, match="rule Wrong: step asks for the signal 'pre', which does not exist"):

        class Wrong(Rule):
            def step(self, pre: Tensor) -> Tensor:
                return pre


def test_a_rule_may_inherit_a_loss():
    base = registry.rule("hah")

    class Child(base):  # type: ignore[misc,valid-type]
        pass

    assert Child.shape == "loss"
    assert Child.signals == base.signals


def test_a_loss_that_depends_on_nothing_is_refused():
    class Idle(Rule):
        def loss(self, post: Tensor) -> Tensor:
            return post.detach().sum()

    from hebbbench.plasticity.signals import LinearPre

    with pytest.raises(RuleError, match="loss must return a scalar tensor that depends on `post` or `weight`"):
        Idle().delta(pre=LinearPre(torch.ones(2, 3)), post=torch.ones(2, 4), weight=torch.ones(4, 3))
