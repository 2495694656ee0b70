"""The board's statistics against scipy's own tests, against definitions written out, and at their edges."""

from __future__ import annotations

import itertools
import random

import pytest
from scipy import stats

from hebbbench.board.statistics import Tier, holm, paired, summarise, tiers


def draw(seed: int, n: int, mean: float = 0.9, spread: float = 0.01) -> dict[int, float]:
    generator = random.Random(seed)
    return {s: generator.gauss(mean, spread) for s in range(n)}


def naive_holm(p_values: list[float], alpha: float) -> list[bool]:
    """Holm by its closed-testing definition: reject i if every set of hypotheses with i in it is rejected by
    Bonferroni."""
    everything = range(len(p_values))
    sets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(everything, size)]
    return [all(min(p_values[j] for j in s) <= alpha / len(s) for s in sets if i in s) for i in everything]


def test_summary_by_hand() -> None:
    summary = summarise([0.90, 0.92, 0.94])
    assert summary is not None
    assert summary.mean == pytest.approx(0.92)
    assert summary.sd == pytest.approx(0.02)  # √((0.02² + 0 + 0.02²)/2)
    assert summary.n == 3


def test_summary_of_one_value_has_no_spread() -> None:
    summary = summarise([0.5])
    assert summary is not None
    assert (summary.mean, summary.sd, summary.n) == (0.5, None, 1)
    assert summarise([]) is None


def test_paired_by_hand() -> None:
    # d = 1, 2, 3 points: mean 2, s = 1, s/√3 = 0.57735; t₀.₉₇₅,₂ = 4.302653
    found = paired({0: 0.51, 1: 0.62, 2: 0.73}, {0: 0.50, 1: 0.60, 2: 0.70})
    assert found is not None
    assert found.mean == pytest.approx(0.02)
    assert found.low == pytest.approx(0.02 - 4.302653 * 0.0057735, abs=1e-7)
    assert found.high == pytest.approx(0.02 + 4.302653 * 0.0057735, abs=1e-7)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_paired_agrees_with_scipy(n: int) -> None:
    ours, theirs = draw(1, n), draw(2, n, mean=0.89)
    expected = stats.ttest_rel([ours[s] for s in range(n)], [theirs[s] for s in range(n)])
    interval = expected.confidence_interval(0.95)
    found = paired(ours, theirs)
    assert found is not None
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_pairing_uses_common_seeds_only() -> None:
    ours, theirs = draw(1, 5), draw(2, 5)
    assert paired({**ours, 7: 0.1}, {**theirs, 8: 0.9}) == paired(ours, theirs)
    assert paired({0: 0.9}, {1: 0.9}) is None


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({0: 0.9}, {0: 0.8}),
        ({0: 0.95, 1: 0.96, 2: 0.97}, {0: 0.90, 1: 0.91, 2: 0.92}),  # equal up to rounding
        ({0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.5}),
    ],
)
def test_no_interval_without_spread(ours: dict[int, float], theirs: dict[int, float]) -> None:
    found = paired(ours, theirs)
    assert found is not None
    assert found.mean == pytest.approx(ours[0] - theirs[0])
    assert (found.low, found.high, found.p) == (None, None, None)


def test_holm_by_hand() -> None:
    # 0.01 ≤ 0.05/4, 0.02 > 0.05/3: stop
    assert holm([0.02, 0.01, 0.03, 0.04]) == [False, True, False, False]
    assert holm([0.01, 0.016, 0.025, 0.05]) == [True, True, True, True]
    assert holm([]) == []


def test_holm_agrees_with_closed_testing() -> None:
    generator = random.Random(3)
    for _ in range(200):
        p_values = [generator.random() ** 3 for _ in range(generator.randint(1, 6))]
        assert holm(p_values) == naive_holm(p_values, 0.05)


def naive_tiers(rows: dict[str, dict[int, float]]) -> dict[str, int]:
    """Tiers by scipy's paired test and the closed-testing form of Holm; every pair must be testable."""
    left = sorted(rows, key=lambda name: -sum(rows[name].values()))
    found: dict[str, int] = {}
    tier = 0
    while left:
        tier += 1
        leader = left[0]
        p_values = [
            float(stats.ttest_rel(list(rows[leader].values()), list(rows[name].values())).pvalue) for name in left[1:]
        ]
        worse = naive_holm(p_values, 0.05)
        together = [leader, *(name for name, is_worse in zip(left[1:], worse, strict=True) if not is_worse)]
        found.update(dict.fromkeys(together, tier))
        left = [name for name in left if name not in together]
    return found


def test_tiers_agree_with_the_naive_form() -> None:
    numbers = set()
    for trial in range(60):
        generator = random.Random(trial)
        rows = {
            f"rule{i}": draw(100 * trial + i, 5, generator.choice([0.9, 0.91, 0.95]), generator.choice([0.002, 0.02]))
            for i in range(6)
        }
        found = tiers(rows)
        assert {name: tier.number for name, tier in found.items()} == naive_tiers(rows)
        assert all(tier.tested for tier in found.values())
        numbers |= {tier.number for tier in found.values()}
    assert numbers >= {1, 2, 3}


def test_tiers_do_not_depend_on_order() -> None:
    rows = {f"rule{i}": draw(i, 5, 0.9 + 0.01 * (i % 3)) for i in range(7)}
    assert tiers(rows) == tiers(dict(reversed(rows.items())))


def test_untestable_rows_share_a_tier_and_are_marked() -> None:
    best = {0: 0.95, 1: 0.96, 2: 0.97}
    shifted = {seed: value - 0.05 for seed, value in best.items()}
    worse = {0: 0.501, 1: 0.502, 2: 0.505}
    assert tiers({"best": best, "shifted": shifted, "worse": worse}) == {
        "best": Tier(1, True),
        "shifted": Tier(1, False),
        "worse": Tier(2, True),
    }


def test_one_seed_gives_no_tiers() -> None:
    assert tiers({"bp": {0: 0.9}, "random": {0: 0.1}}) == {}
    assert tiers({}) == {}
