"""EGHR, the error-gated Hebbian rule: Hebb, gated by one number a sample that says how surprising the whole layer is.

    Δw_k = ⟨(E₀ − E(u)) g(u_k) x⟩                u = w x
    E(u) = √2 Σ_k |u_k|,  g(u) = √2 sign(u)      −log p and its slope, p Laplacian with variance 1

Isomura & Toyoizumi 2016, Scientific Reports 6:28073: independent components by a rule with one global factor. E₀ is
K + 1 for K units unless given: with it, independent Laplacian potentials of variance 1 are a fixed point, since then
⟨E √2|u_k|⟩ = (K − 1) + 2. (That derivation is ours; so is leaving out the constant of log p, which E₀ takes up.)
Made for K ≤ fan_in sources; with more units their scale settles, but independence is out of reach.
"""

from math import sqrt
from typing import ClassVar

from pydantic import PositiveFloat
from torch import Tensor

from hebbbench import Pre, Rule, hebb


class ErrorGatedHebb(Rule):
    expected_failures: ClassVar[dict[str, str]] = {
        "learns": "it makes potentials independent; in noise those are no better than random ones at any rate tried"
    }

    target: PositiveFloat | None = None  # E₀; K + 1 if none

    def delta(self, pre: Pre, post: Tensor) -> Tensor:
        target = post.shape[1] + 1 if self.target is None else self.target
        energy = sqrt(2) * post.abs().sum(1, keepdim=True)
        return hebb((target - energy) * sqrt(2) * post.sign(), pre)
