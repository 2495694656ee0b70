"""Plain Hebb: what fires together wires together, and each unit's weights are brought back to unit norm.

    Δw_k = ⟨y_k x⟩,  then  w_k ← w_k / ‖w_k‖          y = u = w x, relu(u) or tanh(u)

Hebb 1949. The control of Koplow, Poggio & Ziyin, Figure 9, "Normalized Hebbian", in its pre-activation (linear) and
post-activation (relu, tanh) variants. The paper says that weights are standardized after every step, but not how:
`norm` unit brings each unit to ‖w_k‖ = 1, standard to mean 0 and variance 1. Without either, weights grow without
bound. With linear y every unit seeks the same first principal component.
"""

from typing import Literal

from torch import Tensor

from hebbbench import Pre, Rule, activity, hebb, standardized, unit_norm


class PlainHebb(Rule):
    activity: Literal["linear", "relu", "tanh"] = "linear"  # f in y = f(u)
    norm: Literal["unit", "standard"] = "unit"

    def delta(self, pre: Pre, post: Tensor) -> Tensor:
        return hebb(activity(post, self.activity), pre)

    def constrain(self, weight: Tensor) -> Tensor:
        return unit_norm(weight) if self.norm == "unit" else standardized(weight)
