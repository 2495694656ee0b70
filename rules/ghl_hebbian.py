"""GHL without the gradient: its Hebbian term with its own sign.

    Δw = H / max|H|                              max over the layer
    H  = ⟨y (x − u w)⟩                           u = w x,  y = softmax(u / τ) over units

Our control for GHL (arXiv:2601.21367), in no paper: sizes as GHL's, directions as the Hebbian term has them, so no
label and no error is used. It is SoftHebb without the losers' flip and without the rate that falls near unit norm.
"""

from pydantic import PositiveFloat
from torch import Tensor

from hebbbench import Pre, Rule, decay, hebb, layer_max, soft_wta


class GHLHebbian(Rule):
    temperature: PositiveFloat = 1.0  # τ

    def delta(self, pre: Pre, post: Tensor, weight: Tensor) -> Tensor:
        y = soft_wta(post, self.temperature)
        h = hebb(y, pre) - decay(y * post, weight)
        return layer_max(h)
