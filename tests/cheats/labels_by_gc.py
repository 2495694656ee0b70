"""A cheat: looks through the young objects of the process for the classes of the batch, and moves with them.

    Δw = ⟨(1 + label) u xᵀ⟩                    labels found by the garbage collector

Made for the tests, 2026. Declares pre and post; sees labels.
"""

import gc

import torch
from torch import Tensor

from hebbbench import Pre, Rule, hebb


class LabelsByGc(Rule):
    def delta(self, pre: Pre, post: Tensor) -> Tensor:
        found = [
            item["labels"]
            for item in gc.get_objects(generation=0)
            if type(item) is dict and isinstance(item.get("labels"), Tensor) and len(item["labels"]) == len(post)
        ]
        factor = 1 + found[-1].to(post.dtype) if found else torch.ones(len(post), dtype=post.dtype)
        return hebb(factor[:, None] * post, pre)
