"""Agreement of a rule with a naive reference written from its paper.

A reference is a function named after the rule, whose parameters are named as the signals are, and as hyper-parameters
are; it takes those it names and returns Δw:

    def reference_winner(pre, post, weight, temperature): ...

`pre`, or `x_patches`, is dense rows (B, in), `post` (B, out), `weight` and `grad` (out, in), `error` (N, classes),
`labels` (N,), `state` a dict of the rule's tensors as `init` made them, each of which may be named by itself, too; all
float64. It returns (out, in), as a tensor or as nested lists.

Of a rule in a file of one's own it stands in `test_winner.py` beside `winner.py`, where `hebbbench new rule` writes it,
or in the rule's file; those of the repository's rules stand in `tests/references.py`, and the test suite compares them.
"""

from __future__ import annotations

import ast
import inspect
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hebbbench import registry
from hebbbench.checks.knobs import alternatives
from hebbbench.checks.stimulus import GEOMETRIES, convolution, gaussian, outside_signals, respond, unfolded
from hebbbench.checks.subject import Failed, Skipped, Subject
from hebbbench.errors import RuleError, one_line
from hebbbench.plasticity.rule import SIGNALS
from hebbbench.plasticity.signals import weight_rows

TOLERANCE = 1e-8
PATCHES = "x_patches"
"""What the repository's references call the rows of `pre`, which of a convolution are its patches."""

Reference = Callable[..., Any]


def own_reference(subject: Subject) -> str:
    """The reference that comes with the rule's file, where one does, agrees with `delta`."""
    name = f"reference_{subject.path.stem}"
    beside = subject.path.with_name(f"test_{subject.path.name}")
    reference, file = getattr(subject.module, name, None), subject.path
    if reference is None and subject.path.stem in registry.rule_names():
        raise Skipped(f"the test suite compares {name} of tests/references.py")
    if reference is None:
        reference, file = _function(beside, name), beside
    if reference is None:
        raise Skipped(f"there is no {name} in {beside.name} beside the rule, nor in {subject.path.name}")
    subject.need_layer_update()
    problem = disagreement(subject.rule, reference)
    if problem is not None:
        raise Failed(problem)
    return f"{name} of {file.name}, on a linear layer and on convolutions"


def _function(file: Path, name: str) -> Reference | None:
    """A function of a file that is no rule; None if the file has none, or is not there."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return None
    if not any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body):
        return None
    try:
        found: Reference = runpy.run_path(str(file))[name]
    except Exception as error:
        raise Failed(f"{file.name} cannot be imported: {type(error).__name__}: {one_line(error)}.") from error
    return found


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
    linear = nn.Linear(7, 5, bias=False, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(gaussian(5, 7, seed=11))
    state = subject.build().init(linear.weight.detach())
    known = list(dict.fromkeys([*SIGNALS, PATCHES, *subject.kind.model_fields, *state]))
    for name in inspect.signature(reference).parameters:
        if name not in known:
            return f"the reference asks for '{name}', which is none of {', '.join(known)}."
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
    state = rule.init(weight)
    given: dict[str, Any] = {**state, **rule.model_dump(), **outside_signals(module.weight.detach(), len(x))}
    given |= {"pre": rows, PATCHES: rows, "post": rows @ weight.T, "weight": weight, "state": state}
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
