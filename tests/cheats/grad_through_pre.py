"""A cheat: reaches through its input to the layer's parameter, and on to what autograd left there.

    Δw = ⟨y xᵀ⟩ + ∂L/∂w                        ∂L/∂w from the parameter, if there is one

Made for the tests, 2026. Declares pre and post. The harness leaves no gradient there for a rule that did not ask, so
it does no harm; what it reaches for is refused all the same.
"""

from torch import Tensor

from hebbbench import Pre, Rule, hebb


class GradThroughPre(Rule):
    def delta(self, pre: Pre, post: Tensor) -> Tensor:
        layer = getattr(pre, "layer", None) or (pre._layer if hasattr(pre, "_layer") else None)
        update = hebb(post, pre)
        if layer is not None and layer.weight.grad is not None:
            update = update + layer.weight.grad.flatten(1)
        return update
