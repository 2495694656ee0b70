"""Checks of one update: its shape and type, its finiteness, and that nothing but the update comes of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hebbbench.checks.network import SAMPLES
from hebbbench.checks.rig import Played, Rig, Scene
from hebbbench.checks.stimulus import (
    GEOMETRIES,
    convolution,
    equation,
    gaussian,
    outside_signals,
    respond,
    unfolded,
)
from hebbbench.checks.subject import Failed, Subject
from hebbbench.plasticity.signals import weight_rows

DTYPES = (torch.float64, torch.float32, torch.bfloat16)
TOLERANCE = 1e-9
STEPS = 3


def shapes(subject: Subject) -> str:
    """delta is (out, in), of the weight's dtype and on its device; state keeps shape and dtype."""
    subject.need_layer_update()
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        for dtype in DTYPES:
            module = nn.Linear(12, 24, bias=False, dtype=dtype)
            weight = gaussian(24, 12, seed=8, dtype=dtype).to(device)
            rows = gaussian(SAMPLES, 12, seed=9, dtype=dtype).to(device)
            outside = {name: value.to(device) for name, value in outside_signals(module.weight, SAMPLES).items()}
            delta = equation(subject.build(), rows, weight, outside)
            if not isinstance(delta, Tensor):
                raise Failed(f"delta returns {delta!r}, not a tensor: the direction of change, (out, in).")
            made = "Make new tensors like one of the signals, as torch.zeros_like(weight) does."
            for what, ours, wanted, remedy in (
                ("shape", tuple(delta.shape), (24, 12), "It is the direction of change, a row for each unit."),
                ("dtype", delta.dtype, dtype, made),
                ("device", delta.device.type, device, made),
            ):
                if ours != wanted:
                    raise Failed(
                        f"for a {dtype} weight (24, 12) on {device} delta has {what} {ours}, not {wanted}. {remedy}"
                    )
    return f"(out, in) in {', '.join(str(dtype).removeprefix('torch.') for dtype in DTYPES)} on {', '.join(devices)}"


def finite(make: Callable[[Scene], list[Tensor]], dtype: torch.dtype = torch.float32) -> Callable[[Subject], str]:
    """A check that every update is finite when the network meets the inputs that `make` gives."""

    def run(subject: Subject) -> str:
        rig = Rig(subject.rule, dtype=dtype, rate=1e-3)
        scene = rig.scene()
        inputs = make(scene)
        played = rig.play(scene.but(x=inputs, labels=[labels[: len(inputs[0])] for labels in scene.labels]))
        _refuse_infinite(played, rig, "Guard the division, root or exponential.")
        return ""

    return run


def update(subject: Subject) -> str:
    """A few steps on ordinary inputs come to an end, and change the weights by finite numbers."""
    rig = Rig(subject.rule, dtype=torch.float32)
    played = rig.play(rig.scene(passes=STEPS))
    remedy = "The inputs are ordinary: look for what divides by zero, overflows, or takes a root or log below zero."
    _refuse_infinite(played, rig, remedy)
    return f"{STEPS} steps"


def _refuse_infinite(played: Played, rig: Rig, remedy: str) -> None:
    for call in played.calls:
        bad = int((~call.delta.isfinite()).sum())
        if bad:
            raise Failed(
                f"{bad} of {call.delta.numel()} entries of delta are not finite at layer "
                f"'{rig.layers[call.layer].name}' in step {call.number + 1}. {remedy}"
            )
    for index, change in ((index, change) for changes in played.changes for index, change in enumerate(changes)):
        if not change.isfinite().all():
            raise Failed(f"the weight of layer '{rig.layers[index].name}' is not finite after a step. {remedy}")


def large(scene: Scene) -> list[Tensor]:
    """Inputs of the order of 10⁴."""
    return [1e4 * x for x in scene.x]


def zeros(scene: Scene) -> list[Tensor]:
    """Inputs that are all 0."""
    return [torch.zeros_like(x) for x in scene.x]


def constant(scene: Scene) -> list[Tensor]:
    """Inputs that are all 1."""
    return [torch.ones_like(x) for x in scene.x]


def single(scene: Scene) -> list[Tensor]:
    """One sample at a time."""
    return [x[:1] for x in scene.x]


def plain(scene: Scene) -> list[Tensor]:
    """The inputs as they are."""
    return scene.x


def conv_is_linear(subject: Subject) -> str:
    """On a convolution the update is that of a linear layer shown the unfolded patches."""
    subject.need_layer_update()
    for geometry in GEOMETRIES:
        layer = convolution(geometry)
        x = gaussian(4, 2, 6, 7, seed=10)
        ours = respond(subject.build(), layer, x)
        outside = outside_signals(layer.weight.detach(), len(x))
        outside["grad"] = weight_rows(outside["grad"])
        rows = unfolded(x, geometry)
        for name in ("error", "labels", "input"):  # a position counts as a sample
            outside[name] = outside[name].repeat_interleave(len(rows) // len(x), dim=0)
        theirs = equation(subject.build(), rows, weight_rows(layer.weight.detach()), outside)
        gap = (ours - theirs).abs().max().item()
        if not gap <= TOLERANCE * max(1.0, theirs.abs().max().item()):
            raise Failed(
                f"with {geometry} the update differs by {gap:.2g} from the one on unfolded rows (largest entry "
                f"{theirs.abs().max().item():.2g}). Use hebb(a, pre), and count rows by pre.count, not by samples."
            )
    return f"{len(GEOMETRIES)} geometries"


def untouched(subject: Subject) -> str:
    """No signal but `state` is written to."""
    subject.need_layer_update()
    rig = Rig(subject.rule)
    scene = rig.scene()
    for call in rig.play(scene).calls:
        if call.touched:
            raise Failed(f"delta writes to its signal '{call.touched[0]}'. Only `state` may change, in place.")
    return ""


def no_graph(subject: Subject) -> str:
    """Neither the update nor the state carries an autograd graph, and `delta` builds none on the way."""
    rig = Rig(subject.rule)
    rig.play(rig.scene())
    if any(value.requires_grad for state in rig.states() for value in state.values()):
        raise Failed("its state carries an autograd graph from step to step. Detach what is kept.")
    if subject.evidence.rule_built_graph:
        raise Failed("delta builds an autograd graph. Write the derivative out, or ask for `grad`, so that it shows.")
    return {"delta": "", "loss": "but for its own slope", "step": "but for its own slopes"}[subject.kind.shape]
