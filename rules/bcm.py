"""BCM: activity above a sliding threshold strengthens, activity below it weakens.

    Δw_k = ⟨y_k (y_k − θ_k) x⟩                   y = relu(u),  u = w x
    θ_k ← (1 − η) θ_k + η ⟨y_k²⟩                 before Δw is formed

Bienenstock, Cooper & Munro 1982, J. Neuroscience 2:32, with ⟨y²⟩ for the threshold. It is stable only while θ moves
faster than w, and y is not negative; hence the ReLU, a large η and a small learning rate. η and θ's start at 1 are
those of HWTA-BCM's code (see hwta_bcm); the theory gives none. Units become selective, but many to the same inputs.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from hebbbench import Pre, Rule, hebb


class BCM(Rule):
    threshold_rate: Annotated[float, Field(gt=0, le=1)] = 0.5  # η

    def init(self, weight: Tensor) -> dict[str, Tensor]:
        return {"threshold": weight.new_ones(weight.shape[0])}

    def delta(self, pre: Pre, post: Tensor, state: dict[str, Tensor]) -> Tensor:
        y = post.relu()
        theta = state["threshold"].lerp_(y.square().mean(0), self.threshold_rate)
        return hebb(y * (y - theta), pre)
