"""Where rules meet layers: who is governed, what a rule is shown and when, what is let go."""

from __future__ import annotations

import copy
import weakref
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hebbbench import Pre, Rule, hebb, registry
from hebbbench.errors import HebbBenchError, ProtocolError, RuleError, UnknownNameError
from hebbbench.plasticity.attach import Plasticity
from hebbbench.plasticity.procedure import Procedure
from hebbbench.plasticity.rule import SIGNALS
from hebbbench.plasticity.select import select

LABELS = torch.tensor([0, 1, 2, 1])


class Net(nn.Module):
    """Two plastic layers between normalisations and in-place activations, and a read-out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential()
        self.body.add_module("norm", nn.BatchNorm1d(6))
        self.body.add_module("fc1", nn.Linear(6, 5, bias=False))
        self.body.add_module("act1", nn.ReLU(inplace=True))
        self.body.add_module("fc2", nn.Linear(5, 4))
        self.body.add_module("act2", nn.ReLU(inplace=True))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


def attach(net: nn.Module, rule: str | type[Rule], patterns: tuple[str, ...] = ("fc*",)) -> Plasticity:
    return Plasticity(net, list(patterns), registry.rule(rule) if isinstance(rule, str) else rule, {})


def backward(logits: Tensor) -> None:
    F.cross_entropy(logits, LABELS).backward()


# Which layers a rule governs


def test_patterns_choose_layers_in_the_order_of_the_network(net):
    assert [layer.name for layer in attach(net, "oja", ("fc2", "fc1")).layers] == ["body.fc1", "body.fc2"]


@pytest.mark.parametrize("pattern", ["fc1", "body.fc1", "fc?", "body.fc?", "*fc*"])
def test_a_pattern_fits_a_name_with_or_without_body(net, pattern):
    assert "body.fc1" in [layer.name for layer in attach(net, "oja", (pattern,)).layers]


def test_a_pattern_that_fits_nothing_is_refused_with_the_layers_listed(net):
    with pytest.raises(ProtocolError, match=r"'conv\*' fits no .*Layers: body.fc1, body.fc2, head\."):
        attach(net, "oja", ("fc1", "conv*"))


class Mixed(nn.Module):
    """Convolutions and linear maps, in the body and in the head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1), nn.Flatten(), nn.Linear(8, 4))
        self.head = nn.Linear(4, 3)


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["all convolutions"], ["body.0", "body.1"]),
        (["all linear layers"], ["body.3"]),
        (["all layers"], ["body.0", "body.1", "body.3"]),
        (["all layers", "!1"], ["body.0", "body.3"]),
        (["!body.0", "all convolutions", "head"], ["body.1", "head"]),
    ],
    ids=str,
)
def test_a_kind_stands_for_the_bodys_layers_and_a_mark_takes_one_away(patterns, names):
    assert list(select(Mixed(), patterns)) == names


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["all convolution"], "'all convolution' fits no .* Or say one of: all convolutions, "),
        (["all layers", "!fc"], "'!fc' fits no"),
        (["!0"], "leaves no layer"),
    ],
    ids=str,
)
def test_a_choice_of_nothing_is_refused(patterns, message):
    with pytest.raises(ProtocolError, match=message):
        select(Mixed(), patterns)


def test_a_grouped_convolution_is_refused_by_name():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(RuleError, match=r"layer '0' is a convolution in 2 groups"):
        attach(model, "oja", ("0",))


def test_a_layer_run_twice_in_one_step_is_refused_by_name():
    shared = nn.Linear(6, 6, bias=False)
    for rule in ("oja", "bp"):
        model = nn.Sequential(shared, nn.ReLU(), shared)
        plasticity = attach(model, rule, ("0",))
        with pytest.raises(RuleError, match=r"layer '0' ran twice"), plasticity.learning(LABELS):
            model(torch.ones(4, 6))


def test_inplace_activations_are_switched_off_so_a_rule_sees_the_potential(net, x):
    seen = []

    class Watch(Rule):
        def delta(self, post: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
            seen.append(post)
            return weight * 0

    plasticity = attach(net, Watch, ("fc1",))
    potential = net.body.fc1(net.body.norm(x)).detach()
    with plasticity.learning(LABELS):
        backward(net(x))
    assert (potential < 0).any()
    assert torch.equal(seen[0], potential)
    assert not any(getattr(module, "inplace", False) for module in net.modules())


# What a rule may ask for


def test_an_unknown_signal_is_refused_when_the_class_is_made():
    with pytest.raises(RuleError) as caught:

        class Typo(Rule):
            def delta(self, pre: Pre, pots: Tensor) -> Tensor:
                return hebb(pots, pre)

    assert "rule Typo: delta asks for the signal 'pots'" in str(caught.value)
    assert "Did you mean 'post'?" in str(caught.value)
    assert all(signal in str(caught.value) for signal in SIGNALS)


def test_a_rule_without_an_equation_is_refused_when_the_class_is_made():
    with pytest.raises(RuleError, match=r"rule Empty has one equation: .* It defines none of them"):

        class Empty(Rule):
            rate: float = 1.0


def test_signals_are_the_parameter_names_of_delta():
    assert registry.rule("ghl").signals == ("pre", "post", "weight", "grad")
    assert registry.rule("softhebb").signals == ("pre", "post", "weight")


def test_ghl_on_a_map_of_tokens_is_its_equation_over_samples_and_tokens():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 2)).double()
    tokens = torch.randn(3, 4, 5, dtype=torch.float64)
    weight, bias = model[0].weight.detach(), model[0].bias.detach()
    u = torch.einsum("btd,od->bto", tokens, weight)
    y = u.softmax(2)
    h = (torch.einsum("bto,btd->od", y, tokens) - torch.einsum("bto,bto->o", y, u)[:, None] * weight) / 12
    plain = torch.autograd.grad(model(tokens).square().mean(), model[0].weight)[0]
    plasticity = attach(model, "ghl", ("0",))
    with plasticity.learning(LABELS):
        model(tokens).square().mean().backward()
    torch.testing.assert_close(model[0].weight.grad, h.abs() / h.abs().max() * plain.sign())
    assert bias.any()


def test_an_activity_overwritten_in_place_is_refused_by_the_layers_name():
    class Overwrites(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x).relu_()

    model = Overwrites()
    plasticity = attach(model, "ghl_matched", ("fc",))
    with plasticity.learning(LABELS), pytest.raises(RuleError, match="layer 'fc' was overwritten in place"):
        backward(model(torch.randn(4, 6)))


def test_a_rule_sees_rows_of_its_layers_own_traffic(net, x):
    seen = {}

    class Watch(Rule):
        def delta(self, pre: Pre, post: Tensor, weight: Tensor) -> Tensor:
            seen.update(rows=pre.rows, count=pre.count, post=post, weight=weight)
            return hebb(post, pre)

    with attach(net, Watch, ("fc1",)).learning(LABELS):
        net(x)
    given = F.batch_norm(x, None, None, net.body.norm.weight, net.body.norm.bias, training=True)
    torch.testing.assert_close(seen["rows"], given)
    torch.testing.assert_close(seen["post"], given @ net.body.fc1.weight.T)
    assert torch.equal(seen["weight"], net.body.fc1.weight)
    assert seen["count"] == 4
    assert not any(seen[name].requires_grad for name in ("rows", "post", "weight"))


def test_a_convolutions_rows_are_positions_and_its_columns_row_column_channel():
    seen = {}

    class Watch(Rule):
        def delta(self, pre: Pre, post: Tensor, weight: Tensor) -> Tensor:
            seen.update(rows=pre.rows, count=pre.count, post=post, weight=weight)
            return hebb(post, pre)

    model = nn.Sequential(nn.Conv2d(3, 5, (2, 3), bias=False))
    images = torch.randn(2, 3, 4, 5)
    with attach(model, Watch, ("0",)).learning(LABELS):
        output = model(images)
    assert seen["rows"].shape == (18, 18)
    assert seen["count"] == 18
    assert torch.equal(seen["rows"][4], images[0, :, 1:3, 1:4].permute(1, 2, 0).flatten())
    assert torch.equal(seen["post"][4], output[0, :, 1, 1])
    torch.testing.assert_close(seen["rows"] @ seen["weight"].T, seen["post"])


@pytest.mark.parametrize("shape", [(4, 5), (6,), (1, 5, 6), ()], ids=str)
def test_an_update_of_the_wrong_shape_is_refused_with_both_shapes(net, x, shape):
    class Crooked(Rule):
        def delta(self, weight: Tensor) -> Tensor:
            return torch.zeros(shape)

    message = r"Crooked at layer 'body.fc1': delta has shape .* of the shape of the weight's rows, \(5, 6\)"
    with pytest.raises(RuleError, match=message), attach(net, Crooked).learning(LABELS):
        net(x)


@pytest.mark.parametrize("signals", ["weight", "pre, post", "weight, grad"])
def test_an_equation_that_forgets_to_return_is_told_so(net, x, signals):
    namespace = {"Rule": Rule}
    exec(f"class Silent(Rule):\n    def delta(self, {signals}): weight = None", namespace)
    network = attach(net, namespace["Silent"], ("fc1",))
    with (
        pytest.raises(RuleError, match=r"Silent at layer 'body.fc1': delta returned None; it must return"),
        network.learning(LABELS),
    ):
        net(x).sum().backward()


def test_labels_reach_a_rule_that_asks_and_change_no_other(net, x):
    seen = []

    class Supervised(Rule):
        def delta(self, weight: Tensor, labels: Tensor) -> Tensor:
            seen.append(labels)
            return torch.zeros_like(weight)

    with attach(net, Supervised, ("fc1",)).learning(LABELS):
        net(x)
    assert torch.equal(seen[0], LABELS)

    def update(labels: Tensor) -> Tensor:
        twin = Net()
        with attach(twin, "softhebb").learning(labels):
            twin(x)
        return twin.body.fc2.weight.grad

    assert torch.equal(update(LABELS), update(LABELS.flip(0)))


def test_the_networks_input_reaches_deep_layers_of_a_rule_that_asks_as_rows(net, x):
    seen = []

    class Watcher(Rule):
        def delta(self, weight: Tensor, input: Tensor) -> Tensor:
            seen.append(input)
            return torch.zeros_like(weight)

    images = x.view(len(x), 1, 2, -1)
    with attach(net, Watcher, ("fc2",)).learning(LABELS, images):
        net(x)
    assert len(seen) == 1
    assert torch.equal(seen[0], x)


def test_the_output_error_reaches_every_layer_of_a_rule_that_asks(net, x):
    seen = []

    class Broadcast(Rule):
        def delta(self, pre: Pre, post: Tensor, error: Tensor) -> Tensor:
            seen.append(error)
            return hebb(post * error.sum(), pre)

    plasticity = attach(net, Broadcast)
    with plasticity.learning(LABELS):
        logits = net(x)
        assert not seen
        error = logits.detach().softmax(dim=1) - F.one_hot(LABELS, 3)
        plasticity.on_error(error)
    (slope,) = torch.autograd.grad(F.cross_entropy(logits, LABELS), logits)
    assert [torch.equal(given, error) for given in seen] == [True, True]
    torch.testing.assert_close(seen[0], slope * len(x))
    assert all(weight.grad is not None for weight in plasticity.weights())


def test_a_rule_that_does_not_ask_for_the_error_takes_no_notice_of_it(net, x):
    plasticity = attach(net, "oja")
    with plasticity.learning(LABELS):
        logits = net(x)
        before = [weight.grad.clone() for weight in plasticity.weights()]
        plasticity.on_error(logits.detach())
    after = [weight.grad for weight in plasticity.weights()]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_a_rule_may_ask_for_gradient_and_error_together(net, x):
    class Both(Rule):
        def delta(self, grad: Tensor, error: Tensor) -> Tensor:
            return -grad * error.abs().mean()

    plasticity = attach(net, Both)
    with plasticity.learning(LABELS):
        logits = net(x)
        plasticity.on_error(torch.full_like(logits, 2.0))
        backward(logits)
    twin = Net()
    backward(twin(x))
    torch.testing.assert_close(net.body.fc1.weight.grad, 2 * twin.body.fc1.weight.grad)


# Where the update goes


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_backprop_through_a_rule_is_autograd_bit_for_bit(layout):
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, stride=2)
    model = nn.Sequential(first, nn.ReLU(inplace=True), second, nn.Flatten(), nn.Linear(45, 3))
    model = model.to(memory_format=layout)
    twin = copy.deepcopy(model)
    images = torch.randn(4, 3, 8, 8).to(memory_format=layout)
    backward(twin(images))
    with attach(model, "bp", ("0", "2", "4")).learning(LABELS):
        backward(model(images))
    for ours, true in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours.grad, true.grad)


@pytest.mark.parametrize("rule", ["ghl", "sign"])
def test_every_other_parameter_keeps_its_true_gradient(net, x, rule):
    twin = Net()
    backward(twin(x))
    with attach(net, rule).learning(LABELS):
        backward(net(x))
    for (name, ours), true in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(ours.grad, true.grad) == (name not in ("body.fc1.weight", "body.fc2.weight")), name


def test_the_gradient_below_a_governed_layer_is_the_true_one(net, x):
    twin = Net()
    backward(twin(x))
    with attach(net, "ghl", ("fc2",)).learning(LABELS):
        backward(net(x))
    assert torch.equal(net.body.fc1.weight.grad, twin.body.fc1.weight.grad)


def test_an_optimizer_step_moves_a_weight_along_the_update(net, x):
    class Up(Rule):
        def delta(self, weight: Tensor) -> Tensor:
            return torch.ones_like(weight)

    plasticity = attach(net, Up, ("fc1",))
    before = net.body.fc1.weight.detach().clone()
    with plasticity.learning(LABELS):
        net(x)
    torch.optim.SGD(plasticity.weights(), lr=0.5).step()
    torch.testing.assert_close(net.body.fc1.weight.detach(), before + 0.5)


def test_outside_learning_a_network_is_just_a_network(net, x):
    twin = Net()
    attach(net, "ghl")
    backward(net(x))
    backward(twin(x))
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(net.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("rule", ["oja", "softhebb", "random"])
def test_a_local_rule_learns_without_autograd(net, x, rule):
    plasticity = attach(net, rule)
    with torch.no_grad(), plasticity.learning(LABELS):
        net(x)
    assert all(weight.grad is not None for weight in plasticity.weights())


# Only one layer, and no more than needed


def test_only_the_chosen_layer_of_a_local_rule_learns(net, x):
    plasticity = attach(net, "oja")
    with plasticity.learning(LABELS, only=1):
        net(x)
    assert net.body.fc1.weight.grad is None
    assert net.body.fc2.weight.grad is not None


def test_only_the_chosen_layer_of_a_gradient_rule_moves(net, x):
    plasticity = attach(net, "sign")
    before = net.body.fc2.weight.detach().clone()
    with plasticity.learning(LABELS, only=0):
        backward(net(x))
    torch.optim.SGD(plasticity.weights(), lr=0.1).step()
    assert set(net.body.fc1.weight.grad.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert torch.equal(net.body.fc2.weight, before)


@pytest.mark.parametrize(("only", "computed"), [(None, ["fc1", "fc2"]), (0, ["fc1"]), (1, ["fc1", "fc2"])])
def test_a_pass_ends_after_the_last_layer_that_learns(net, x, only, computed):
    ran = []
    for name, module in [*net.body.named_children(), ("head", net.head)]:
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    plasticity = attach(net, "softhebb")
    ran.clear()
    with plasticity.learning(LABELS, only=only, stop_after_last=True):
        net(x)
        pytest.fail("the pass should have ended")
    assert [name for name in ran if name.startswith(("fc", "head"))] == computed
    assert ran[-1] == computed[-1]


def test_a_rule_that_needs_the_gradient_is_never_stopped_early(net, x):
    plasticity = attach(net, "ghl")
    with plasticity.learning(LABELS, stop_after_last=True):
        backward(net(x))
    assert all(weight.grad is not None for weight in plasticity.weights())


def test_the_next_pass_is_whole_again(net, x):
    plasticity = attach(net, "oja")
    with plasticity.learning(LABELS, stop_after_last=True):
        net(x)
    assert net(x).shape == (4, 3)


def held(plasticity: Plasticity) -> bool:
    return any(layer._pre is not None or layer._post is not None for layer in plasticity.layers)


def test_a_local_rule_holds_no_activity_once_its_layer_has_run(net, x):
    activity = []

    class Watch(Rule):
        def delta(self, pre: Pre, post: Tensor) -> Tensor:
            activity.extend([weakref.ref(pre), weakref.ref(post)])
            return hebb(post, pre)

    plasticity = attach(net, Watch)
    with torch.no_grad(), plasticity.learning(LABELS):
        net(x)
        assert [reference() for reference in activity] == [None] * 4
        assert not held(plasticity)


@pytest.mark.parametrize("early", [True, False])
def test_activity_is_held_until_the_gradient_has_come_only_if_it_must_be(net, x, early):
    activity = []

    class Watch(Rule):
        def delta(self, pre: Pre, post: Tensor, grad: Tensor) -> Tensor:
            activity.extend([weakref.ref(pre), weakref.ref(post)])
            return -grad if early else -grad.view(grad.shape)

    plasticity = attach(net, Watch)
    with plasticity.learning(LABELS):
        loss = F.cross_entropy(net(x), LABELS)
        assert bool(held(plasticity)) != early
        loss.backward()
        assert not held(plasticity)
        assert not any(reference() for reference in activity)


def test_a_pass_that_fails_leaves_nothing_behind(net, x):
    plasticity = attach(net, "ghl")
    with pytest.raises(ValueError, match="batch_size"), plasticity.learning(LABELS):
        F.cross_entropy(net(x), LABELS[:2])
    assert not held(plasticity)
    with plasticity.learning(LABELS):
        backward(net(x))
    assert set(plasticity.weights()[0].grad.shape) == {5, 6}


# A rule's own tensors


class Trace(Rule):
    """Follows the running mean of the potential."""

    def init(self, weight: Tensor) -> dict[str, Tensor]:
        return {"mean": torch.zeros(len(weight))}

    def delta(self, pre: Pre, post: Tensor, state: dict[str, Tensor]) -> Tensor:
        state["mean"].lerp_(post.mean(dim=0), 0.5)
        return hebb(post - state["mean"], pre)


def test_state_is_kept_from_step_to_step_by_layer(net, x):
    plasticity = attach(net, Trace)
    for _ in range(2):
        with plasticity.learning(LABELS):
            net(x)
    mean = net.body.fc1(net.body.norm(x)).mean(dim=0).detach()
    torch.testing.assert_close(plasticity.state_dict()["body.fc1"]["mean"], 0.75 * mean)
    assert plasticity.state_dict()["body.fc2"]["mean"].shape == (4,)


def test_a_restored_state_goes_on_as_if_never_interrupted(net, x):
    first, other = attach(net, Trace), Net()
    with first.learning(LABELS):
        net(x)
    saved = copy.deepcopy(first.state_dict())
    second = attach(other, Trace)
    second.load_state_dict(saved)
    for network, plasticity in ((net, first), (other, second)):
        with plasticity.learning(LABELS):
            network(x)
    assert torch.equal(net.body.fc2.weight.grad, other.body.fc2.weight.grad)
    assert torch.equal(first.state_dict()["body.fc2"]["mean"], second.state_dict()["body.fc2"]["mean"])
    assert not torch.equal(first.state_dict()["body.fc2"]["mean"], saved["body.fc2"]["mean"])


# Rules from files outside the repository

OUTSIDE = '''"""Hebb: what fires together wires together."""

from hebbbench import Pre, Rule, hebb
from torch import Tensor


class PlainHebb(Rule):
    """A test's rule."""

    gain: float = 2.0  # g

    def delta(self, pre: Pre, post: Tensor) -> Tensor:
        """The mean of u x."""
        return self.gain * hebb(post, pre)
'''


def write(folder: Path, text: str, name: str = "plain_hebb.py") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_rule_in_a_file_outside_the_repository_learns(tmp_path, net, x):
    path = write(tmp_path, OUTSIDE)
    assert registry.rule(path) is registry.rule(path)
    plasticity = attach(net, path)
    with plasticity.learning(LABELS):
        net(x)
    given = F.batch_norm(x, None, None, training=True)
    weight = net.body.fc1.weight.detach()
    torch.testing.assert_close(-net.body.fc1.weight.grad, 2.0 * weight @ given.T @ given / 4)


SECOND = "\n\nclass Another(PlainHebb):\n    pass\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OUTSIDE + SECOND, "exactly one public rule class; it defines PlainHebb, Another"),
        ("from hebbbench import Rule\n", "exactly one public rule class; it defines none"),
        ("class Broken(:\n", "cannot be imported: SyntaxError"),
        ("import no_such\n", "cannot be imported: ModuleNotFoundError: No module named 'no_such'"),
        (OUTSIDE.replace("post: Tensor", "past: Tensor"), "Did you mean 'post'"),
    ],
    ids=["two-classes", "no-class", "syntax-error", "missing-import", "unknown-signal"],
)
def test_a_bad_rule_file_is_refused_with_its_fault(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(RuleError) as caught:
        registry.rule(path)
    assert message in str(caught.value)


def test_a_private_class_beside_the_rule_is_no_second_rule(tmp_path):
    text = OUTSIDE + "\n\nclass _Base(PlainHebb):\n    pass\n"
    assert registry.rule(write(tmp_path, text)).__name__ == "PlainHebb"


def test_an_outside_file_may_not_take_a_registered_name(tmp_path):
    with pytest.raises(RuleError, match=r"the name 'ghl' of .* belongs to .*ghl\.py\. Rename"):
        registry.rule(write(tmp_path, OUTSIDE, "ghl.py"))


def test_a_registered_rule_may_be_given_by_its_own_path():
    assert registry.rule(str(registry.rule_path("ghl"))) is registry.rule("ghl")


def test_a_missing_rule_file_and_an_unknown_name_are_told_apart(tmp_path):
    with pytest.raises(RuleError, match=r"there is no rule file .*absent\.py"):
        registry.rule(str(tmp_path / "absent.py"))
    with pytest.raises(UnknownNameError, match=r"there is no rule 'softheb'. Did you mean 'softhebb'\?"):
        registry.rule("softheb")


@pytest.mark.parametrize("name", registry.rule_names())
def test_every_registered_rule_loads_and_says_what_it_is(name):
    assert issubclass(registry.rule(name), Rule)
    assert registry.summary(name)
    assert len(registry.rule_source_hash(name)) == 64


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  # g", "  # another word"),
        ("  # g", ""),
        ("A test's rule.", "Some other sentence."),
        ("What fires", "Whatever fires"),
        ("The mean of u x.", "Two\n\n        lines."),
        ("\n\n\nclass", "\n\n\n\n\nclass"),
        ("return", "# now the equation\n        return"),
    ],
)
def test_comments_docstrings_and_blank_lines_do_not_change_a_rules_hash(tmp_path, old, new):
    changed = OUTSIDE.replace("what fires", "What fires")
    assert registry.rule_source_hash(write(tmp_path, OUTSIDE)) == registry.rule_source_hash(
        write(tmp_path, changed.replace(old, new), "other.py")
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("gain: float = 2.0", "gain: float = 2.5"),
        ("self.gain * hebb", "-self.gain * hebb"),
        ("hebb(post, pre)", "hebb(post * post, pre)"),
        ("post: Tensor", "post: Tensor, weight: Tensor"),
        ("return", "post = post.relu()\n        return"),
    ],
)
def test_code_changes_a_rules_hash(tmp_path, old, new):
    assert old in OUTSIDE
    assert registry.rule_source_hash(write(tmp_path, OUTSIDE)) != registry.rule_source_hash(
        write(tmp_path, OUTSIDE.replace(old, new), "other.py")
    )


def test_code_beside_a_docstring_on_one_line_counts(tmp_path):
    text = 'class R:\n    def delta(self, grad): "Descent."; return {}grad\n'
    assert registry.rule_source_hash(write(tmp_path, text.format("-"))) != registry.rule_source_hash(
        write(tmp_path, text.format(""), "other.py")
    )


def test_a_hash_sign_within_a_string_is_no_comment(tmp_path):
    assert registry.rule_source_hash(write(tmp_path, 'KEY = "a # b"\n')) != registry.rule_source_hash(
        write(tmp_path, 'KEY = "a # c"\n', "other.py")
    )


def test_a_broken_file_has_no_hash(tmp_path):
    with pytest.raises(HebbBenchError, match="SyntaxError"):
        registry.rule_source_hash(write(tmp_path, "class Broken(:\n"))


# Rules that break their contract


def breaking(**methods) -> type[Rule]:
    """A rule with these methods, and an update of zero if it has none."""

    def delta(self, weight):
        return torch.zeros_like(weight)

    return type("Breaking", (Rule,), {"__module__": __name__, "delta": delta, **methods})


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, r"rule Breaking: init returned None; it must return a dict of tensors"),
        ({"t": 0.5}, r"init returned 0\.5 as 't'; state is tensors, .* Write torch\.tensor\(0\.5\)"),
    ],
)
def test_a_state_that_is_no_dictionary_of_tensors_is_refused(net, state, message):
    def init(self, weight):
        return state

    with pytest.raises(RuleError, match=message):
        attach(net, breaking(init=init))


def test_a_procedures_state_is_looked_at_as_well(net):
    def begin(self, network):
        return {"a": 1}

    def step(self, network, input, labels):
        return network.head(input).sum()

    rule = type("Stepping", (Rule,), {"__module__": __name__, "begin": begin, "step": step})
    with pytest.raises(RuleError, match="rule Stepping: begin returned 1 as 'a'"):
        Procedure(rule(), net)


@pytest.mark.parametrize("signal", ["weight", "labels", "post", "input"])
def test_a_rule_may_not_write_to_what_it_is_shown(net, x, signal):
    scope: dict = {}
    code = "def delta(self, weight):" if signal == "weight" else f"def delta(self, weight, {signal}):"
    exec(f"{code}\n    {signal}.mul_(1)\n    return weight * 0", {}, scope)
    plasticity = attach(net, breaking(delta=scope["delta"]), ("fc1",))
    with (
        pytest.raises(RuleError, match=f"layer 'body.fc1': delta writes to its {signal}, .*{signal}.clone\\(\\)"),
        torch.no_grad(),
        plasticity.learning(LABELS, x),
    ):
        net(x)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (
            lambda weight: weight.norm(dim=1, keepdim=True),
            r"constrain has shape \(5, 1\); .* rows, \(5, 6\) \(out, in\)",
        ),
        (lambda weight: weight[:1], r"constrain has shape \(1, 6\)"),
        (lambda weight: None, r"constrain returned None"),
    ],
)
def test_a_constraint_of_another_shape_is_refused(net, kept, message):
    def constrain(self, weight):
        return kept(weight)

    with pytest.raises(RuleError, match=message):
        attach(net, breaking(constrain=constrain), ("fc1",)).constrain()


def test_a_rule_that_ends_the_program_is_told_by_name(net, x):
    def delta(self, weight):
        raise SystemExit(75)

    plasticity = attach(net, breaking(delta=delta), ("fc1",))
    with (
        pytest.raises(RuleError, match=r"layer 'body.fc1': delta calls sys.exit\(75\)"),
        torch.no_grad(),
        plasticity.learning(LABELS),
    ):
        net(x)
