"""Conformance of a rule, and its measured plausibility.

from hebbbench.checks import check
report = check("softhebb")        # or the path of a rule's file
print(report)
"""

from __future__ import annotations

from hebbbench.checks.card import Card, badges
from hebbbench.checks.conformance import CHECKS, check, check_all
from hebbbench.checks.probes import measure
from hebbbench.checks.reference import disagreement
from hebbbench.checks.report import Outcome, Report, save_json

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
        HebbBenchError: there is no such rule, or it cannot be built.
    """
    return measure(rule).card()


def card_lines(rule: str) -> str:
    """The card as text, for `hebbbench show rule`."""
    return measured_card(rule).text()
