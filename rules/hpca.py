"""HPCA, Hebbian PCA: Sanger's rule, in which each unit learns from what the units before it leave unexplained.

    Δw_k = ⟨y_k (x − Σ_{j≤k} y_j w_j)⟩ / √fan_in          y = relu(u),  u = w x

Sanger 1989, Neural Networks 2:459 (generalized Hebbian algorithm), in the form of Lagani et al. (HPCA-FH of
arXiv:2207.03172): ReLU, mean over samples and positions, and a step divided by √fan_in. The sum includes the unit
itself; without it nothing would bound a unit's norm. With linear y and `scaled` off it is Sanger's own rule, and unit
k finds principal component k. Later units wait for earlier ones, so those beyond the rank of x never learn.
"""

from typing import Literal

from torch import Tensor

from hebbbench import Pre, Rule, activity, correlation, hebb


class HebbianPCA(Rule):
    activity: Literal["linear", "relu", "tanh"] = "relu"  # f in y = f(u)
    scaled: bool = True  # by 1/√fan_in

    def delta(self, pre: Pre, post: Tensor, weight: Tensor) -> Tensor:
        y = activity(post, self.activity)
        d = hebb(y, pre) - correlation(y).tril() @ weight
        return d / weight.shape[1] ** 0.5 if self.scaled else d
