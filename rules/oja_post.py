"""Oja's rule of the activity: growth and forgetting both follow what a unit puts out, not its potential.

    Δw_k = ⟨y_k (x − y_k w_k)⟩                 y = f(u),  u = w x

The post-activation version of Oja 1982 that Koplow, Poggio & Ziyin run beside the linear one, Figure 9. With f = tanh
forgetting is weaker than growth where a unit saturates, so norms settle above 1; with relu a unit that never fires
never changes.
"""

from typing import Literal

from torch import Tensor

from hebbbench import Pre, Rule, activity, decay, hebb


class OjaOfActivity(Rule):
    activity: Literal["relu", "tanh"] = "tanh"  # f in y = f(u)

    def delta(self, pre: Pre, post: Tensor, weight: Tensor) -> Tensor:
        y = activity(post, self.activity)
        return hebb(y, pre) - decay(y * y, weight)
