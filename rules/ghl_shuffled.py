"""GHL with its magnitudes shuffled: the gradient's sign, and GHL's own step sizes at the wrong weights.

    Δw = −π(|H|) / max|H| · sign(∂L/∂w)          π a new random permutation of the layer's weights at each step
    H  = ⟨y (x − u w)⟩                           u = w x,  y = softmax(u / τ) over units

Our control for GHL (arXiv:2601.21367), in no paper: the steps have exactly GHL's sizes, but where they fall is left
to chance. What GHL gains over it, it owes to the Hebbian term's knowledge of which weights should move.
Draws come from a counter in the rule's state, so a repeated or resumed cell draws the same.
"""

from pydantic import PositiveFloat
from torch import Tensor

from hebbbench import Pre, Rule, decay, draw_counter, hebb, layer_max, permuted, soft_wta


class GHLShuffled(Rule):
    temperature: PositiveFloat = 1.0  # τ

    def init(self, weight: Tensor) -> dict[str, Tensor]:
        return {"draws": draw_counter(weight)}

    def delta(self, pre: Pre, post: Tensor, weight: Tensor, grad: Tensor, state: dict[str, Tensor]) -> Tensor:
        y = soft_wta(post, self.temperature)
        h = hebb(y, pre) - decay(y * post, weight)
        return -permuted(layer_max(h).abs(), state["draws"]) * grad.sign()
