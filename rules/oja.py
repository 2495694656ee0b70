"""Oja's rule: Hebbian growth with just enough forgetting to keep each unit's weights at unit norm.

    Δw_k = ⟨y_k (x − y_k w_k)⟩                 y = u = w x

Oja 1982, J. Math. Biology 15:267. Without competition every unit seeks the same first principal component.
"""

from torch import Tensor

from hebbbench import Pre, Rule, decay, hebb


class Oja(Rule):
    def delta(self, pre: Pre, post: Tensor, weight: Tensor) -> Tensor:
        return hebb(post, pre) - decay(post * post, weight)
