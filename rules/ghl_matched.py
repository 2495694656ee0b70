"""GHL with random magnitudes: the gradient's sign, and step sizes drawn from the distribution of GHL's.

    Δw = −m / max|H| · sign(∂L/∂w)               each m drawn anew, with replacement, from the entries of |H|
    H  = ⟨y (x − u w)⟩                           u = w x,  y = softmax(u / τ) over units

Our control for GHL (arXiv:2601.21367), in no paper. As ghl_shuffled, but the sizes are independent draws: the layer's
total step varies a little, and no weight's size depends on which sizes other weights have got.
Draws come from a counter in the rule's state, so a repeated or resumed cell draws the same.
"""

from pydantic import PositiveFloat
from torch import Tensor

from hebbbench import Pre, Rule, decay, draw_counter, hebb, layer_max, resampled, soft_wta


class GHLMatched(Rule):
    temperature: PositiveFloat = 1.0  # τ

    def init(self, weight: Tensor) -> dict[str, Tensor]:
        return {"draws": draw_counter(weight)}

    def delta(self, pre: Pre, post: Tensor, weight: Tensor, grad: Tensor, state: dict[str, Tensor]) -> Tensor:
        y = soft_wta(post, self.temperature)
        h = hebb(y, pre) - decay(y * post, weight)
        return -resampled(layer_max(h).abs(), state["draws"]) * grad.sign()
