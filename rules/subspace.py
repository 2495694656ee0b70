"""Oja's subspace rule: the units of a layer together span the leading principal components, in no order.

    Δw_k = ⟨y_k (x − Σ_j y_j w_j)⟩               y = u = w x,  j over all units

Oja 1989, Int. J. Neural Systems 1:61. Each unit learns from what the whole layer leaves unexplained, so rows become
orthonormal; which basis of the subspace they form is left to chance. Units beyond the rank of x only decay.
"""

from torch import Tensor

from hebbbench import Pre, Rule, correlation, hebb


class OjaSubspace(Rule):
    def delta(self, pre: Pre, post: Tensor, weight: Tensor) -> Tensor:
        return hebb(post, pre) - correlation(post) @ weight
