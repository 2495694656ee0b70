"""Why a row stands in its tier, or in none: the tests that decided it, in words."""

from __future__ import annotations

from hebbbench.board import text
from hebbbench.board.columns import tier_spans, tier_text
from hebbbench.board.rows import Row, Table
from hebbbench.board.statistics import ALPHA, Difference, paired


def standing(row: Row, table: Table) -> list[str]:
    """Sentences: the row's place, the comparisons with the best of its tier and of the one above, and its notes."""
    if not row.ranked:
        return [f"Not ranked: {', '.join(row.flaws)}. A row is ranked when every seed has a value within the budget."]
    ranked = [other for other in table.rows if other.ranked]
    place = f"Row {ranked.index(row) + 1} of {len(ranked)} by accuracy"
    if row.tier is None:
        return [f"{place}; one seed gives no tiers.", *_against_random(row)]
    spans = tier_spans(table.rows)
    lines = [f"{place}, tier {tier_text(row, spans[row.rule])}."]
    number = row.tier.number
    leader = _leader(table, number)
    if leader is row:
        lines.append(f"It leads tier {number}: {_best_of(number)} has a higher mean.")
    elif row.tier.tested:
        lines.append(f"{_compared(row, leader, table, 'not significant')}, so the tier is the same.")
    else:
        lines.append(
            f"It differs from {leader.rule}, which leads tier {number}, by the same amount at every seed: no test is "
            "possible, and it shares the tier."
        )
    if number > 1:
        lines.append(f"{_compared(row, _leader(table, number - 1), table, 'significant')}, so the tier is another.")
    lowest = spans[row.rule][1]
    if lowest > number:
        lines.append(f"Its mean lies below that of rows of tier {lowest}: its spread is too wide to place it.")
    return [*lines, *_against_random(row)]


def _leader(table: Table, number: int) -> Row:
    """The best row of a tier, with which the others were compared."""
    return next(row for row in table.rows if row.tier is not None and row.tier.number == number)


def _best_of(number: int) -> str:
    return "no row" if number == 1 else f"no row outside tier{'s 1 to' if number > 2 else ''} {number - 1}"


def _compared(row: Row, leader: Row, table: Table, verdict: str) -> str:
    """The test of a row against the best of a tier, and how many such tests were corrected together."""
    assert leader.tier is not None
    number = leader.tier.number
    left = [other for other in table.rows if other.tier is not None and other.tier.number >= number]
    tests = [paired(leader.values, other.values) for other in left if other is not leader]
    counted = sum(test is not None and test.p is not None for test in tests)
    difference = paired(row.values, leader.values)
    assert difference is not None
    return (
        f"Tier {number} is led by {leader.rule}. Difference to it: {difference_text(difference)}; {verdict} among "
        f"{text.count(counted, 'comparison')} (Holm, α = {ALPHA})"
    )


def difference_text(difference: Difference) -> str:
    """A paired difference in words."""
    p = "" if difference.p is None else text.p_value(difference.p)
    test = f", p {p if p.startswith('<') else f'= {p}'}" if p else ", without a test"
    return f"{text.gap(difference)} points{test}, {text.count(difference.n, 'pair')} of seeds"


def _against_random(row: Row) -> list[str]:
    return [f"It is {row.standing}."] if row.standing else []
