"""The board's statistics: mean and spread over seeds, differences paired by seed, and rank tiers.

Values are accuracies as fractions, keyed by seed. Pairing is meaningful because a seed fixes the same
initialisation, sample order and augmentation for every rule of a protocol.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

ALPHA = 0.05
LEAST_SPREAD = 1e-9
"""A standard deviation of differences below this is rounding: one test sample in a hundred million is
more."""

BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation (n − 1 in the denominator; None if n = 1) and number of values."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """A mean paired difference over n common seeds; no interval and no p where no test is possible."""

    mean: float
    n: int
    low: float | None = None
    high: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class Tier:
    """A place from 1 (best). `tested` is False if the row shares the tier for want of a possible test."""

    number: int
    tested: bool


def summarise(values: Sequence[float]) -> Summary | None:
    """Mean, sample standard deviation √(Σ(x − x̄)²/(n − 1)) and n; None without values."""
    if not values:
        return None
    return Summary(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def paired(ours: BySeed, theirs: BySeed) -> Difference | None:
    """The difference ours − theirs on the seeds both have; None if they share none.

    With d_s = ours_s − theirs_s, mean d̄, sample standard deviation s and n common seeds:

        interval  d̄ ± t₀.₉₇₅,ₙ₋₁ · s/√n        t = d̄ / (s/√n)        p = 2 · P(T_{n−1} ≤ −|t|)

    Student's t-test for paired samples, two-sided. With n = 1 or s = 0 (below `LEAST_SPREAD`: the same
    difference at every seed) the spread cannot be estimated: there is no interval and no p-value, whatever
    d̄ is.
    """
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        return None
    differences = [ours[seed] - theirs[seed] for seed in common]
    mean, n = fmean(differences), len(differences)
    if n < 2 or (spread := stdev(differences)) < LEAST_SPREAD:
        return Difference(mean, n)
    from scipy.special import stdtr, stdtrit  # where it is needed: commands that test nothing start without it

    error = spread / math.sqrt(n)
    half = float(stdtrit(n - 1, 1 - ALPHA / 2)) * error
    p = 2 * float(stdtr(n - 1, -abs(mean) / error))
    return Difference(mean, n, mean - half, mean + half, p)


def holm(p_values: Sequence[float], alpha: float = ALPHA) -> list[bool]:
    """Which of m hypotheses are rejected, with the chance of any false rejection held at `alpha`.

    Step-down: the p-values in ascending order, p₍₁₎ ≤ … ≤ p₍ₘ₎; hypothesis (i) is rejected while p₍ᵢ₎ ≤
    α/(m − i + 1), and at the first that is not, it and all after it are kept. Holm 1979, Scand. J.
    Statist. 6:65.
    """
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def tiers(rows: Mapping[str, BySeed]) -> dict[str, Tier]:
    """Row name → tier.

    The row with the highest mean leads tier 1. Each other row is compared with it by the paired test of
    `paired`; the p-values of these comparisons are Holm-corrected together at α = 0.05. A row that is not
    significantly different from the leader belongs to its tier. Among the rows left, the highest mean
    leads the next tier, and so on. A row whose difference to the leader cannot be tested shares its tier
    (no distinction is claimed without a test), is marked untested, and does not count in the correction.
    Because a wide spread is hard to tell from the leader, a row may share a better tier than a row with a
    higher mean. Equal means are ordered by name.

    Returns an empty mapping if no row has two seeds: one seed ranks nothing.
    """
    if not any(len(values) > 1 for values in rows.values()):
        return {}
    left = sorted(rows, key=lambda name: (-fmean(rows[name].values()), name))
    found: dict[str, Tier] = {}
    number = 0
    while left:
        number += 1
        leader, *others = left
        found[leader] = Tier(number, tested=True)
        p_values = {}
        for name in others:
            difference = paired(rows[leader], rows[name])
            if difference is None or difference.p is None:
                found[name] = Tier(number, tested=False)
            else:
                p_values[name] = difference.p
        worse = dict(zip(p_values, holm(list(p_values.values())), strict=True))
        found.update({name: Tier(number, tested=True) for name in p_values if not worse[name]})
        left = [name for name in others if name not in found]
    return found
