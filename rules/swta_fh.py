"""SWTA-FH: soft winner-take-all over directions; each unit moves to the mean of the inputs it won, however few.

    Δw_k = Σ_n c_nk r_nk (x_n − w_k)             c_nk = r_nk / Σ_m r_mk
    r    = softmax(s / τ) over units             s = ((cos(x, w) + 1) / 2)²

Lagani, Amato, Falchi & Gennaro, FastHebb, arXiv:2207.03172, with τ from their code. Because the mean over rows is
weighted by activity, a unit that rarely wins moves as far as one that often does. Two things differ from the code and
change nothing behind a batch norm without affine part: it passes on relu(u / ‖w‖) where our layers pass on relu(u).
Their protocol whitens images (ZCA) for this rule; ours do not. Rows of zeros, which their code divides by, have cos 0.
"""

from pydantic import PositiveFloat
from torch import Tensor

from hebbbench import Pre, Rule, cosine, decay, hebb, soft_wta


class SoftWTA(Rule):
    temperature: PositiveFloat = 0.02  # τ, their k

    def delta(self, pre: Pre, post: Tensor, weight: Tensor) -> Tensor:
        s = ((cosine(pre, post, weight) + 1) / 2).square()
        r = soft_wta(s, self.temperature)
        cr = r * (r / r.mean(0))  # c r, times the number of rows, over which hebb and decay take the mean
        return hebb(cr, pre) - decay(cr, weight)
