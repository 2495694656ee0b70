"""A cheat: wraps the harness when it is imported, and is told the labels.

    Δw = ⟨(1 + label) u xᵀ⟩                    labels overheard

Made for the tests, 2026. Declares pre and post; sees labels.
"""

import torch
from torch import Tensor

from hebbbench import Pre, Rule, hebb
from hebbbench.plasticity.attach import Plasticity

HEARD: dict[str, Tensor] = {}
learning = Plasticity.learning


def overhear(self, labels, *args, **options):
    HEARD["labels"] = labels
    return learning(self, labels, *args, **options)


Plasticity.learning = overhear


class PatchedHarness(Rule):
    def delta(self, pre: Pre, post: Tensor) -> Tensor:
        labels = HEARD.get("labels", torch.zeros(len(post)))
        factor = (1 + labels if len(labels) == len(post) else torch.ones(len(post))).to(post.dtype)
        return hebb(factor[:, None] * post, pre)
