"""Measuring the card: change one thing, hold all else, and see whether a layer's update changes.

Every probe looks at the middle layer of the rig over two passes, so what a rule remembers shows as well. "Held" means
exactly held: the layer is given the same input, or the rest of the network the same output, bit by bit. Later weights
are changed in two ways: anew (activity and error change too), and within the null space of the activity that meets
them, which leaves every activity and the error as they were and changes only what a backward pass would carry.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from hebbbench.checks.network import CLASSES
from hebbbench.checks.rig import HEAD, TARGET, Played, Rig, Scene, differs
from hebbbench.checks.spy import Call
from hebbbench.record.card import Card, Locality
from hebbbench.rng import seed_torch

DEPTHS = (2, 6)
WIDTH = 32
BATCH = 16
MEMORY_GROWS = 0.5
"""Activations held for every layer of depth, above which memory is said to grow with depth."""


@dataclass(frozen=True)
class Evidence:
    """What the probes saw, before it is put into words. If `repeats` is false, the rest says nothing."""

    repeats: bool
    learns: bool
    labels: bool
    network_input: bool | None
    earlier_layers: bool | None
    later_layers: bool
    weight_transport: bool
    other_units: bool
    sister_synapses: bool
    other_samples: bool
    body_recorded: bool
    errors_relayed: bool
    rule_built_graph: bool
    forwards: int
    early: bool
    online: bool
    activations_held: float
    calls: tuple[Call, ...]

    def card(self) -> Card:
        """The evidence as the card."""
        earlier = self.network_input or self.earlier_layers
        outside = self.labels or bool(earlier) or self.later_layers or self.weight_transport
        locality: Locality = "synapse"
        if outside:
            locality = "global"
        elif self.other_units:
            locality = "layer"
        elif self.sister_synapses:
            locality = "unit"
        return Card(
            locality=locality,
            learns=self.learns,
            uses_labels=self.labels,
            needs_backward_pass=self.errors_relayed or self.rule_built_graph,
            transports_weights=self.weight_transport,
            needs_phases=self.forwards > 1,
            update_locked=not self.early,
            sees_earlier_layers=earlier,
            sees_later_layers=self.later_layers,
            couples_samples=self.other_samples,
            online_capable=self.online,
            activations_held=round(self.activations_held, 1),
            memory_grows_with_depth=self.activations_held > MEMORY_GROWS,
        )


def measure(rule: str) -> Evidence:
    """Run every probe on a rule at its default hyper-parameters.

    Raises:
        HebbBenchError: the rule cannot be built.
    """
    rig = Rig(rule)
    scene = rig.scene()
    base = rig.play(scene)
    if rig.learner.procedure is not None:
        return _measure_procedure(rule, rig, scene, base)
    held = scene.but(held_inputs={TARGET: [inputs[TARGET] for inputs in base.inputs]})
    closed = held.but(held_outputs={TARGET: [outputs[TARGET] for outputs in base.outputs]})
    certain = rig.certain(held, base)
    sure = rig.play(certain)
    learns = any(bool(change.abs().max() > 0) for changes in base.changes for change in changes)
    return Evidence(
        repeats=not _sees(rig, base, closed),
        learns=learns,
        labels=any(_sees(rig, base, held.but(labels=labels)) for labels in _other_labels(scene))
        or _sees(rig, sure, certain.but(labels=[*certain.labels[:-1], (certain.labels[-1] + 1) % CLASSES])),
        network_input=_sees(rig, base, closed.but(x=[x.roll(1, 0) + 1 for x in scene.x])),
        earlier_layers=_sees(rig, base, closed.but(weights=rig.redrawn([rig.name(index) for index in range(TARGET)]))),
        later_layers=_sees(rig, base, held.but(weights=rig.redrawn(rig.later(TARGET))))
        or _sees(rig, base, held.but(added=_noise(base, TARGET + 1)))
        or _sees(rig, sure, _turned(rig, sure, certain)),
        weight_transport=_sees(rig, base, held.but(weights=_unfelt(rig, base))),
        other_units=_other_units(rig, base, closed),
        sister_synapses=_sister_weights(rig, base, closed) or _sister_inputs(rig, base, closed),
        other_samples=_couples(rig, scene),
        body_recorded=base.reached_by_autograd,
        errors_relayed=_sees(rig, base, scene.but(misled=TARGET + 1)),
        rule_built_graph=any(call.built_graph for call in base.calls),
        forwards=round(base.forwards / len(base.changes)),
        early=base.early,
        online=_online(rig, learns),
        activations_held=_activations_held(rule),
        calls=tuple(base.calls),
    )


def _measure_procedure(rule: str, rig: Rig, scene: Scene, base: Played) -> Evidence:
    """The evidence on a whole-network procedure.

    Its layers see more than one input for an update, so nothing can be held: whatever changes the network's answer
    may change the update, and only what can be seen of the gradients tells transport from plain dependence. All layers
    are given their updates at the end of the step; one that no later layer changes need not have waited for them.
    """
    learns = any(bool(change.abs().max() > 0) for changes in base.changes for change in changes)
    later = _sees(rig, base, scene.but(weights=rig.redrawn(rig.later(TARGET))))
    return Evidence(
        repeats=not _sees(rig, base, scene),
        learns=learns,
        labels=any(_sees(rig, base, scene.but(labels=labels)) for labels in _other_labels(scene)),
        network_input=None,
        earlier_layers=None,
        later_layers=later,
        weight_transport=base.errors_sent_down,
        other_units=True,
        sister_synapses=True,
        other_samples=_couples(rig, scene),
        body_recorded=base.crossed_layers,
        errors_relayed=base.crossed_layers,
        rule_built_graph=False,
        forwards=round(base.forwards / len(base.changes)),
        early=base.early or not later,
        online=_online(rig, learns),
        activations_held=_activations_held(rule),
        calls=(),
    )


def _target(played: Played) -> Tensor:
    """The target layer's changes in all passes, (passes, out, in)."""
    return torch.stack([changes[TARGET] for changes in played.changes])


def _sees(rig: Rig, base: Played, changed: Scene) -> bool:
    """Whether the target's update tells a scene from the base run."""
    return differs(_target(base), _target(rig.play(changed)))


def _other_labels(scene: Scene) -> Iterator[list[Tensor]]:
    """Every other class for each sample, then for one sample alone: a rule may know only who is of one kind."""
    for shift in range(1, CLASSES):
        yield [(labels + shift) % CLASSES for labels in scene.labels]
    yield [torch.cat([(labels[:1] + 1) % CLASSES, labels[1:]]) for labels in scene.labels]


def _turned(rig: Rig, sure: Played, certain: Scene) -> Scene:
    """The last plastic layer sends the opposite in the last pass."""
    *outputs, last = [passed[-1] for passed in sure.outputs]
    return certain.but(held_outputs={len(rig.layers) - 1: [*outputs, -last]})


def _noise(base: Played, layer: int) -> dict[int, list[Tensor]]:
    source = torch.Generator().manual_seed(2)
    return {layer: [torch.randn(x[layer].shape, generator=source, dtype=x[layer].dtype) for x in base.inputs]}


def _unfelt(rig: Rig, base: Played) -> dict[str, Tensor]:
    """Other later weights that answer the same to every activity seen in the base run."""
    weights = {}
    for index in range(TARGET + 1, len(rig.layers)):
        seen = torch.cat([inputs[index] for inputs in base.inputs])
        weights[rig.name(index)] = rig.start[rig.name(index)] + _blind(rig, rig.name(index), seen)
    seen = torch.cat([outputs[-1] for outputs in base.outputs]).tanh()
    return {**weights, HEAD: rig.start[HEAD] + _blind(rig, HEAD, seen)}


def _blind(rig: Rig, name: str, seen: Tensor, seed: int = 3) -> Tensor:
    """A random change of a weight that no row of `seen` (rows, in) feels."""
    return rig.redrawn([name], seed)[name] @ null_space(seen)


def null_space(rows: Tensor) -> Tensor:
    """The projector (in, in) on what is orthogonal to every row of `rows` (count, in)."""
    basis: Tensor = torch.linalg.qr(rows.T).Q
    return torch.eye(rows.shape[1], dtype=rows.dtype) - basis @ basis.T


def _other_units(rig: Rig, base: Played, closed: Scene) -> bool:
    """Whether the update of every second unit changes when the units between them have other, larger weights."""
    name = rig.name(TARGET)
    weight = 2 * rig.redrawn([name])[name]
    weight[::2] = rig.start[name][::2]
    changed = rig.play(closed.but(weights={name: weight}))
    return differs(_target(base)[:, ::2], _target(changed)[:, ::2])


def _sister_weights(rig: Rig, base: Played, closed: Scene) -> bool:
    """Whether the update of input 0's weights changes with the other weights of the same units, potentials equal."""
    name = rig.name(TARGET)
    seen = torch.cat([inputs[TARGET] for inputs in base.inputs])
    changed = closed.but(weights={name: rig.start[name] + _blind(rig, name, torch.cat([seen, _first(seen)]))})
    return differs(_target(base)[:, :, 0], _target(rig.play(changed))[:, :, 0])


def _sister_inputs(rig: Rig, base: Played, closed: Scene) -> bool:
    """Whether the update of input 0's weights changes with the layer's other inputs, potentials equal."""
    weight = rig.start[rig.name(TARGET)]
    blind = null_space(torch.cat([weight, _first(weight)]))
    noise = _noise(base, TARGET)[TARGET]
    moved = [x + change @ blind for x, change in zip(closed.held_inputs[TARGET], noise, strict=True)]
    changed = closed.but(held_inputs={TARGET: moved})
    return differs(_target(base)[:, :, 0], _target(rig.play(changed))[:, :, 0])


def _first(rows: Tensor) -> Tensor:
    """The unit vector of input 0, (1, in)."""
    unit = torch.zeros(1, rows.shape[1], dtype=rows.dtype)
    unit[0, 0] = 1
    return unit


def _couples(rig: Rig, scene: Scene) -> bool:
    """Whether exchanging a sample makes another difference among other samples (a mixed second difference)."""
    other = rig.scene(len(scene.x), len(scene.x[0]), seed=4)

    def update(first: Scene, rest: Scene) -> Tensor:
        x = [torch.cat([a[:1], b[1:]]) for a, b in zip(first.x, rest.x, strict=True)]
        return rig.play(scene.but(x=x)).changes[0][0]

    a, b, c, d = update(scene, scene), update(other, scene), update(scene, other), update(other, other)
    return differs(a - b, c - d, a)


def _online(rig: Rig, learns: bool) -> bool:
    """Whether one sample at a time gives finite updates, and not only zeros where a batch gives more."""
    changes = [change for changes in rig.play(rig.scene(passes=4, samples=1)).changes for change in changes]
    finite = all(bool(change.isfinite().all()) for change in changes)
    return finite and (not learns or any(bool(change.abs().max() > 0) for change in changes))


def _activations_held(rule: str) -> float:
    """Activities of a layer held for each layer of depth when the last layer has run.

    Counted are the bytes of all tensors alive then and not before the step, those that autograd saved among them, as
    far as they grow with the batch: what is as large as a weight, such as an update, is no activity.
    """
    grown = [_held_at_depth(rule, depth, 2 * BATCH) - _held_at_depth(rule, depth, BATCH) for depth in DEPTHS]
    return max(0.0, (grown[1] - grown[0]) / (DEPTHS[1] - DEPTHS[0]) / (BATCH * WIDTH * 8))


def _held_at_depth(rule: str, depth: int, samples: int) -> int:
    rig = Rig(rule, widths=[WIDTH] * depth, inputs=WIDTH)
    scene = rig.scene(passes=1, samples=samples)
    learner = rig.learner
    standing = [*learner.model.parameters(), *learner.model.buffers(), scene.x[0], scene.labels[0]]
    standing += [value for layer in rig.layers for value in layer.state.values()]
    known = {_address(tensor) for tensor in standing}
    held = 0

    def count(*_: object) -> None:
        nonlocal held
        gradients = {_address(weight.grad) for weight in learner.model.parameters() if weight.grad is not None}
        held = sum(size for address, size in _new_tensors().items() if address not in known | gradients)

    handle = rig.layers[-1].module.register_forward_hook(count)
    gc.freeze()
    try:
        with torch.random.fork_rng(devices=[]), saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
            seed_torch(0)
            learner.step(scene.x[0], scene.labels[0], 0, 0.0)
    finally:
        gc.unfreeze()
        handle.remove()
    return held


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _new_tensors() -> dict[int, int]:
    """Address → bytes of the memory of every tensor made since the collector was frozen."""
    return {
        _address(item): item.untyped_storage().nbytes() for item in gc.get_objects() if issubclass(type(item), Tensor)
    }
