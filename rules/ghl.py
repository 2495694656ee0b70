"""GHL, Global-guided Hebbian Learning: the size of a step is Hebbian and local, its direction is the gradient's sign.

    Δw = −|H| / max|H| · sign(∂L/∂w)          max over the layer
    H  = ⟨y (x − u w)⟩                         u = w x,  y = softmax(u / τ) over units

"Hebbian Learning with Global Direction", arXiv:2601.21367, equations 4 to 6. The paper prints +sign, which would
climb the loss; its code descends, and divides H by the layer's largest entry, which the paper leaves out. The
magnitude is taken after the mean over samples and positions. Where the gradient is 0, so is the step.
"""

from pydantic import PositiveFloat
from torch import Tensor

from hebbbench import Pre, Rule, decay, hebb, layer_max, soft_wta


class GHL(Rule):
    temperature: PositiveFloat = 1.0  # τ

    def delta(self, pre: Pre, post: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
        y = soft_wta(post, self.temperature)
        h = hebb(y, pre) - decay(y * post, weight)
        return -layer_max(h).abs() * grad.sign()
