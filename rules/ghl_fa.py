"""GHL with a direction from random feedback: errors that tell the sign travel back through fixed random weights.

    Δw = −|H| / max|H| · sign(∂L/∂w)          with W replaced by B random, drawn once, on the way back to ∂L/∂w
    H  = ⟨y (x − u w)⟩                         u = w x,  y = softmax(u / τ) over units;  max over the layer

GHL (arXiv:2601.21367, which names other global signals as future work) on the path of feedback alignment (Lillicrap
et al. 2016, Nature Communications 7:13276): a direction without weight transport. In neither paper; else as GHL.
"""

from typing import ClassVar

from pydantic import PositiveFloat
from torch import Tensor

from hebbbench import Pre, Rule, decay, hebb, layer_max, soft_wta


class GHLFeedbackAlignment(Rule):
    feedback: ClassVar = "random"

    temperature: PositiveFloat = 1.0  # τ

    def delta(self, pre: Pre, post: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
        y = soft_wta(post, self.temperature)
        h = hebb(y, pre) - decay(y * post, weight)
        return -layer_max(h).abs() * grad.sign()
