"""A cheat: counts its own calls on the class instead of in its state.

    Δw = ⟨y xᵀ⟩ / n                            n = calls so far

Made for the tests, 2026. Declares pre and post; a resumed run is another run.
"""

from typing import ClassVar

from torch import Tensor

from hebbbench import Pre, Rule, hebb


class ClassMemory(Rule):
    calls: ClassVar[list[int]] = [0]

    def delta(self, pre: Pre, post: Tensor) -> Tensor:
        self.calls[0] += 1
        return hebb(post, pre) / self.calls[0]
