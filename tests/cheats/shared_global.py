"""A cheat: each layer scales its Oja step by what the layer before it left in a global.

    Δw = m ⟨y (x − y w)⟩                       m = mean |u| of the layer before

Made for the tests, 2026. Declares pre, post and weight; reads another layer.
"""

from torch import Tensor

from hebbbench import Pre, Rule, decay, hebb

SEEN: list[Tensor] = []


class SharedGlobal(Rule):
    def delta(self, pre: Pre, post: Tensor, weight: Tensor) -> Tensor:
        scale = SEEN[-1] if SEEN else post.new_ones(())
        SEEN[:] = [post.abs().mean()]
        return scale.to(post.dtype) * (hebb(post, pre) - decay(post * post, weight))
