"""Sign-only: the gradient's direction, with every weight moving by the same amount.

    Δw = −sign(∂L/∂w)

The ablation of GHL without its Hebbian magnitude (arXiv:2601.21367, Table 5); signSGD of Bernstein et al. 2018,
arXiv:1802.04434. Its steps are larger on average than GHL's at one rate, so it needs a rate of its own.
"""

from torch import Tensor

from hebbbench import Rule


class SignOnly(Rule):
    def delta(self, grad: Tensor) -> Tensor:
        return -grad.sign()
