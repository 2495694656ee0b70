"""Checks that an update is a function of its signals and state: repeated, shuffled, replayed, and taken up again."""

from __future__ import annotations

import io

import torch
from torch import Tensor

from hebbbench.checks.network import CLASSES, INPUTS, WIDTHS, build_learner, toy_cell
from hebbbench.checks.rig import Rig, differs
from hebbbench.checks.spy import copied, seed_draws
from hebbbench.checks.subject import Failed, Subject
from hebbbench.rng import seed_torch
from hebbbench.training.learner import Learner

STEPS = 4
BREAK = 2


def _learner(subject: Subject) -> Learner:
    return build_learner(toy_cell(subject.rule, {}, WIDTHS, 1e-2, 0), INPUTS, CLASSES, torch.float32)


def _train(learner: Learner, first: int, last: int) -> None:
    """Steps `first` to `last`. Torch's global generator stands where it stands: no cell may depend on it."""
    for number in range(first, last):
        source = torch.Generator().manual_seed(number)
        x = torch.randn(8, INPUTS, generator=source)
        learner.step(x, torch.arange(8) % CLASSES, number, 0.0)


def _difference(a: Learner, b: Learner) -> str:
    pairs = zip(a.plasticity.layers, b.plasticity.layers, strict=True)
    gaps = [(float((x.weight - y.weight).abs().max()), x.name) for x, y in pairs]
    gap, name = max(gaps)
    return f"weights differ by up to {gap:.2g}, at layer '{name}'"


def same_bits(subject: Subject) -> str:
    """The same cell from the same seed gives the same weights, bit by bit."""
    with torch.random.fork_rng(devices=[]):
        one, two = _learner(subject), _learner(subject)
        _train(one, 0, STEPS)
        seed_torch(1)  # what another cell before this one would have left behind
        _train(two, 0, STEPS)
    if one.digest() != two.digest():
        raise Failed(
            f"{STEPS} steps run twice from one seed: {_difference(one, two)}. Draw from a counter in `state` "
            "(hebbbench.draw_counter), not from torch's global generator, and remember in `state` alone."
        )
    return f"{STEPS} steps, twice"


def checkpoint(subject: Subject) -> str:
    """Stopped, saved, loaded in a new learner and taken up again, training leaves the same bits."""
    with torch.random.fork_rng(devices=[]):
        whole, begun, resumed = _learner(subject), _learner(subject), _learner(subject)
        _train(whole, 0, STEPS)
        _train(begun, 0, BREAK)
        buffer = io.BytesIO()
        torch.save(begun.state_dict(), buffer)
        buffer.seek(0)
        _train(begun, BREAK, BREAK + 1)  # what a rule keeps outside its state is now another
        try:
            resumed.load_state_dict(torch.load(buffer, weights_only=True))
        except (KeyError, RuntimeError, AttributeError, TypeError) as error:
            raise Failed(
                f"its state cannot be loaded: {type(error).__name__}: {error}. Make every tensor in `init`, at its "
                "final shape, and change it in place."
            ) from error
        _train(resumed, BREAK, STEPS)
    if whole.digest() != resumed.digest():
        raise Failed(
            f"resumed after step {BREAK} of {STEPS}: {_difference(whole, resumed)}. Keep what the rule remembers in "
            "`state`: make it in `init`, change it in place."
        )
    own = begun.plasticity.layers[0].state if begun.procedure is None else begun.procedure.state
    names = ", ".join(own)
    return f"state: {names}" if names else "no state"


def sample_order(subject: Subject) -> str:
    """The order of the samples in a batch does not matter."""
    rig = Rig(subject.rule)
    scene = rig.scene(passes=2, samples=6)
    order = torch.tensor([3, 5, 1, 0, 4, 2])
    turned = scene.but(x=[x[order] for x in scene.x], labels=[labels[order] for labels in scene.labels])
    before, after = rig.play(scene), rig.play(turned)
    for number, (a, b) in enumerate(zip(before.changes, after.changes, strict=True), start=1):
        for layer, old, new in zip(rig.layers, a, b, strict=True):
            if differs(old, new):
                raise Failed(
                    f"samples in another order give another update at layer '{layer.name}' in step {number} (by "
                    f"{(old - new).abs().max().item():.2g}). If the rule goes through samples one by one, declare "
                    "'sample-order' in expected_failures."
                )
    return ""


def own_signals(subject: Subject) -> str:
    """Given the same signals and state, a new instance alone gives the update it gave in the network."""
    subject.need_layer_update()
    calls = Rig(subject.rule)
    played = calls.play(calls.scene(passes=3))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for call in played.calls:
            seed_draws(call.layer, call.number)
            again: Tensor = subject.build().delta(**copied(call.signals))
            if differs(call.delta, again):
                raise Failed(
                    f"at layer '{calls.layers[call.layer].name}' in step {call.number + 1} the update was another in "
                    "the network than for the same signals and state alone. The rule reads something else: a global, "
                    "a class attribute, another layer. What it remembers belongs in `state`."
                )
    return f"{len(played.calls)} updates replayed"
