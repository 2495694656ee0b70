"""`hebbbench check`: every named check on one rule, and what came of each.

A rule that is known to fail a check says so on its class, with the reason:

    expected_failures: ClassVar[dict[str, str]] = {"learns": "a control: nothing is learnt"}

Declarations are strict: a declared failure that passes is a failure, and so is the name of no check.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import torch

from hebbbench import registry
from hebbbench.checks import knobs, numerics, plausibility, recipes, reference, repeat, shares, text, toy
from hebbbench.checks.network import undisturbed
from hebbbench.checks.report import Outcome, Report
from hebbbench.checks.subject import Failed, Skipped, Subject
from hebbbench.errors import HebbBenchError, one_line, place_in, suggestion, unknown_name

Check = Callable[[Subject], str]

CHECKS: dict[str, Check] = {
    "docstring": text.docstring,
    "public-names": text.public_names,
    "signals": text.signals,
    "defaults": knobs.defaults,
    "shapes": numerics.shapes,
    "update": numerics.update,
    "bad-values": knobs.bad_values,
    "knobs": knobs.every_knob,
    "finite-zeros": numerics.finite(numerics.zeros),
    "finite-constant": numerics.finite(numerics.constant),
    "finite-large": numerics.finite(numerics.large),
    "finite-one-sample": numerics.finite(numerics.single),
    "finite-bf16": numerics.finite(numerics.plain, torch.bfloat16),
    "convolution": numerics.conv_is_linear,
    "inputs-untouched": numerics.untouched,
    "no-graph": numerics.no_graph,
    "same-bits": repeat.same_bits,
    "sample-order": repeat.sample_order,
    "own-signals": repeat.own_signals,
    "shares": shares.shares,
    "checkpoint": repeat.checkpoint,
    "recipes": recipes.resolve_all,
    "reference": reference.own_reference,
    "learns": toy.learns,
    "card-repeats": plausibility.repeats,
    "card-labels": plausibility.no_hidden_labels,
    "card-backward": plausibility.no_hidden_backward,
    "card-earlier-layers": plausibility.no_earlier_layers,
    "card-later-layers": plausibility.no_hidden_later_layers,
    "card-transport": plausibility.no_hidden_transport,
    "card-phases": plausibility.one_pass,
    "card-signals": plausibility.no_phantom_signals,
}
"""Every check by name, in the order of the report."""

NEEDED = ("signals", "defaults", "shapes", "update")
"""Checks without which no other can be trusted: if one fails, those that run the rule are skipped."""
ON_TEXT = ("docstring", "public-names", "signals", "defaults")
RUNS = ("shapes", "update")
"""Those that run the rule's equation. Where it fails, all that runs it again would say the same; recipes only fit."""


def check(rule: str, only: Collection[str] = ()) -> Report:
    """Run every check on one rule.

    Args:
        rule: a registered name, or the path of a rule's file.
        only: names of checks; all if empty.

    Raises:
        UnknownNameError: there is no rule, or no check, of that name.
        RuleError: there is no such file, or its name belongs to another rule.
    """
    began = time.perf_counter()
    subject = Subject(rule)
    path = subject.path
    for name in only:
        if name not in CHECKS:
            raise unknown_name("check", name, CHECKS)
    with undisturbed():
        outcomes = _outcomes(subject, only or CHECKS)
    card = subject.evidence.card() if "evidence" in vars(subject) and subject.evidence.repeats else None
    return Report(
        rule=path.stem, file=str(path), outcomes=outcomes, card=card, seconds=round(time.perf_counter() - began, 3)
    )


def check_all() -> list[Report]:
    """Every rule of the registry, sorted by name."""
    return [check(name) for name in registry.rule_names()]


def _outcomes(subject: Subject, chosen: Collection[str]) -> list[Outcome]:
    try:
        declared = _declared(subject)
    except HebbBenchError as error:
        return [Outcome(name="file", status="failed", detail=str(error))]
    outcomes = [Outcome(name="file", status="passed", detail=subject.kind.__name__)]
    for name in declared:
        if name not in CHECKS:
            detail = f"expected_failures names '{name}', which is no check. {suggestion(name, CHECKS)}"
            outcomes[0] = Outcome(name="file", status="failed", detail=detail)
    broken = ""
    for name, run in CHECKS.items():
        if name not in chosen:
            continue
        if broken and name not in ON_TEXT and not (name == "recipes" and broken in RUNS):
            detail = f"{subject.kind.shape} fails" if broken in RUNS else f"the check '{broken}' failed"
            outcomes.append(Outcome(name=name, status="skipped", detail=detail))
            continue
        outcome = _judged(name, run, subject, declared)
        outcomes.append(outcome)
        if outcome.status == "failed" and name in NEEDED:
            broken = name
    return outcomes


def _declared(subject: Subject) -> dict[str, str]:
    declared = getattr(subject.kind, "expected_failures", {})
    return dict(declared)


def _judged(name: str, run: Check, subject: Subject, declared: dict[str, str]) -> Outcome:
    """One check's outcome, in the light of what the rule declares."""
    failure = None
    detail = ""
    try:
        with torch.random.fork_rng(devices=[]):
            detail = run(subject)
    except Skipped as reason:
        return Outcome(name=name, status="skipped", detail=str(reason))
    except Failed as finding:
        failure = str(finding)
    except HebbBenchError as error:
        failure = str(error)
    except (Exception, SystemExit) as error:
        failure = f"{type(error).__name__}: {one_line(error)}{place_in(error, subject.path)}"
    if name in declared:
        if failure is None:
            return Outcome(
                name=name,
                status="failed",
                detail=f"declared to fail ({declared[name]}), but passes. Take it out of expected_failures.",
            )
        return Outcome(name=name, status="expected", detail=f"{declared[name]} ({failure})")
    return Outcome(name=name, status="passed" if failure is None else "failed", detail=failure or detail)
