"""How Hebbian a learning update is: its cosine with the update that plain Hebb would have made of the same activity.

    A = cos(g, ⟨a xᵀ⟩) = Σ_ki g_ki ⟨a_k x_i⟩ / (‖g‖ ‖⟨a xᵀ⟩‖)

g (out, in) is the rule's update of one layer, weight decay and every other part of the optimizer left out: the negative
gradient for backprop, whatever optimizer follows it. ⟨a xᵀ⟩ is the mean over the same batch; a is the layer's potential
u = w x (pre-activation, the headline) or its activity f(u) (post-activation). Biases take no part. +1: the layer moves
as Hebb would move it; −1: anti-Hebbian; 0: no relation.

Koplow, Poggio & Ziyin, "Emergence of Hebbian Dynamics in Regularized Non-Local Learners", Sections 2 and 3. Two numbers
come of it, and they differ in kind. The mean over the last minibatches is what the paper's table can be compared with.
The cosine over all training data cannot depend on the strength of the decay where learning has come to rest: there
⟨g⟩ = γ w, so it is cos(w, w ⟨x xᵀ⟩) for every γ > 0. What rises with γ in the former is signal over minibatch noise.

The question turned round (the paper's Figure 9) is how like gradient descent a Hebbian rule moves a layer: its SGD
alignment,

    S = cos(g, −∂L/∂w)

with g as above, the rule's update before any constraint on the weights, and L the task's loss of the same minibatch, at
the answers of the network's own read-out with the same weights; decay takes no part.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """The cosine of the angle between two matrices, over the last two dimensions, (…).

    Args:
        a, b: (…, out, in). Where one is zero there is no angle, and the result is no number.
    """
    norms = torch.linalg.vector_norm(a, dim=(-2, -1)) * torch.linalg.vector_norm(b, dim=(-2, -1))
    cosine: Tensor = (a * b).sum((-2, -1)) / norms
    return cosine


def hebbian(a: Tensor, x: Tensor) -> Tensor:
    """⟨a xᵀ⟩ over rows, what plain Hebb would add to the weight, (…, out, in).

    Args:
        a: potentials or activities (…, B, out); x: the layer's input (…, B, in).
    """
    return a.mT @ x / x.shape[-2]
