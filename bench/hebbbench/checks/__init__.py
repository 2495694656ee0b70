"""Conformance of a rule, and its measured plausibility.

from hebbbench.checks import check
report = check("softhebb")        # or the path of a rule's file
print(report)
"""

from __future__ import annotations

from hebbbench.checks.conformance import CHECKS, check, check_all
from hebbbench.checks.network import undisturbed
from hebbbench.checks.probes import measure
from hebbbench.checks.reference import disagreement
from hebbbench.checks.report import Outcome, Report, save_json
from hebbbench.errors import RuleError
from hebbbench.record.card import Card, badges

__all__ = [
    "CHECKS",
    "Card",
    "Outcome",
    "Report",
    "badges",
    "card_lines",
    "check",
    "check_all",
    "disagreement",
    "measure",
    "measured_card",
    "save_json",
]


def measured_card(rule: str) -> Card:
    """The plausibility card of a rule, by registered name or by the path of its file.

    Raises:
        HebbBenchError: there is no such rule, it cannot be built, or its update does not repeat.
    """
    with undisturbed():
        evidence = measure(rule)
    if not evidence.repeats:
        raise RuleError(
            f"no card can be measured of rule '{rule}': the same two steps, run again, gave another update, or one "
            "that is not finite. What the rule remembers belongs in `state`; its draws come from a counter there "
            "(hebbbench.draw_counter)."
        )
    return evidence.card()


def card_lines(rule: str) -> str:
    """The card as text.

    Raises:
        HebbBenchError: as `measured_card`.
    """
    return measured_card(rule).text()
