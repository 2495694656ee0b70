"""Anti-Hebb: what fires together is taken apart, and each unit's weights are brought back to unit norm.

    Δw_k = −⟨y_k x⟩,  then  w_k ← w_k / ‖w_k‖          y = u = w x, relu(u) or tanh(u)

Koplow, Poggio & Ziyin 2025, "Emergence of Hebbian Dynamics in Regularized Non-Local Learners", Equation 2 with s = −1.
The norm, without which weights would go to zero, is that of their Hebbian control. With linear y every unit seeks the
last principal component, along which its input varies least.
"""

from typing import ClassVar, Literal

from torch import Tensor

from hebbbench import Pre, Rule, activity, hebb, unit_norm


class AntiHebb(Rule):
    expected_failures: ClassVar[dict[str, str]] = {
        "learns": "it turns to what varies least, where little is to be seen"
    }

    activity: Literal["linear", "relu", "tanh"] = "linear"  # f in y = f(u)

    def delta(self, pre: Pre, post: Tensor) -> Tensor:
        return -hebb(activity(post, self.activity), pre)

    def constrain(self, weight: Tensor) -> Tensor:
        return unit_norm(weight)
