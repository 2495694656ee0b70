"""A cheat: keeps the labels of a batch in its state, and uses them one step later.

    Δw_k = ⟨y_k x⟩ (1 + c)                     c = mean label of the batch before

Made for the tests, 2026. Declares pre, post and state; sees labels.
"""

import sys

from torch import Tensor

from hebbbench import Pre, Rule, hebb


class LabelsInState(Rule):
    def init(self, weight: Tensor) -> dict[str, Tensor]:
        return {"mean": weight.new_zeros(())}

    def delta(self, pre: Pre, post: Tensor, state: dict[str, Tensor]) -> Tensor:
        update = hebb(post, pre) * (1 + state["mean"])
        frame = sys._getframe()
        while frame is not None:
            labels = frame.f_locals.get("labels")
            if isinstance(labels, Tensor):
                state["mean"].copy_(labels.to(post.dtype).mean())
                break
            frame = frame.f_back
        return update
