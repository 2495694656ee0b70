"""Agreement of a rule with a naive reference written from its paper.

A reference is a function whose parameters are named as the signals are, and as hyper-parameters are; it takes those
it names and returns Δw:

    def reference(pre, post, weight, temperature): ...

`pre` is dense rows (B, in), `post` (B, out), `weight` and `grad` (out, in), `error` (N, classes), `labels` (N,),
`state` a dict of the rule's tensors as `init` made them; all float64. It returns (out, in), as a tensor or as nested
lists. In the repository references stand in tests/; a rule file outside it may hold one under the name `reference`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hebbbench.checks.knobs import alternatives
from hebbbench.checks.stimulus import GEOMETRIES, convolution, gaussian, outside_signals, respond, unfolded
from hebbbench.checks.subject import Failed, Skipped, Subject
from hebbbench.errors import RuleError
from hebbbench.plasticity.rule import SIGNALS
from hebbbench.plasticity.signals import weight_rows

TOLERANCE = 1e-8

Reference = Callable[..., Any]


def own_reference(subject: Subject) -> str:
    """The rule file's own `reference`, where it gives one, agrees with `delta`."""
    reference = getattr(subject.module, "reference", None)
    if reference is None:
        raise Skipped("the file gives none (a module-level function `reference`)")
    subject.need_layer_update()
    problem = disagreement(subject.rule, reference)
    if problem is not None:
        raise Failed(problem)
    return "on a linear layer and on convolutions"


def disagreement(rule: str, reference: Reference) -> str | None:
    """Where a rule and its reference differ, or None if they agree.

    Compared on a linear layer at the defaults and with each hyper-parameter changed, and on convolutions.

    Args:
        rule: a registered name or the path of a rule file.
        reference: see the module.

    Raises:
        HebbBenchError: there is no such rule.
    """
    subject = Subject(rule)
    known = [*SIGNALS, *subject.kind.model_fields]
    for name in inspect.signature(reference).parameters:
        if name not in known:
            return f"the reference asks for '{name}', which is neither a signal nor a hyper-parameter. Valid: {known}."
    linear = nn.Linear(7, 5, bias=False, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(gaussian(5, 7, seed=11))
    rows = gaussian(6, 7, seed=12)
    for setting in _settings(subject):
        problem = _compare(subject, reference, linear, rows, rows, setting)
        if problem is not None:
            return f"on a linear layer{_with(setting)}: {problem}"
    x = gaussian(2, 2, 5, 6, seed=13)
    for geometry in GEOMETRIES[:3]:
        problem = _compare(subject, reference, convolution(geometry), x, unfolded(x, geometry), {})
        if problem is not None:
            return f"on a convolution with {geometry}: {problem}"
    return None


def _settings(subject: Subject) -> Iterator[dict[str, Any]]:
    yield {}
    for name in subject.kind.model_fields:
        for value in alternatives(subject, name):
            try:
                subject.build({name: value})
            except RuleError:
                continue
            yield {name: value}
            break


def _with(setting: dict[str, Any]) -> str:
    return "".join(f" with {name} = {value!r}" for name, value in setting.items())


def _compare(
    subject: Subject,
    reference: Reference,
    module: nn.Linear | nn.Conv2d,
    x: Tensor,
    rows: Tensor,
    setting: dict[str, Any],
) -> str | None:
    rule = subject.build(setting)
    ours = respond(rule, module, x)
    weight = weight_rows(module.weight.detach())
    given: dict[str, Any] = {**rule.model_dump(), **outside_signals(module.weight.detach(), len(x))}
    given |= {"pre": rows, "post": rows @ weight.T, "weight": weight, "state": rule.init(weight)}
    given["grad"] = weight_rows(given["grad"])
    theirs = torch.as_tensor(
        reference(**{name: given[name] for name in inspect.signature(reference).parameters}), dtype=torch.float64
    )
    if theirs.shape != ours.shape:
        return f"the reference returns {tuple(theirs.shape)}, delta {tuple(ours.shape)} (out, in)."
    gap = (ours - theirs).abs()
    if gap.max().item() <= TOLERANCE * max(1.0, theirs.abs().max().item()):
        return None
    unit, synapse = divmod(int(gap.argmax()), gap.shape[1])
    return (
        f"delta and the reference differ most at unit {unit}, input {synapse}: {ours[unit, synapse].item():.6g} "
        f"against {theirs[unit, synapse].item():.6g}."
    )
