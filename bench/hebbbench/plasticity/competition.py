"""Competition between the units of a layer, at each row: each sample, and each position of a convolution."""

from __future__ import annotations

from torch import Tensor


def soft_wta(post: Tensor, temperature: float) -> Tensor:
    """Soft winner-take-all: softmax(u / τ) over units, (B, out).

    Args:
        post: potentials u, (B, out).
        temperature: τ; smaller is harder. The SoftHebb code's `t_invert` is 1/τ.
    """
    return (post / temperature if temperature != 1 else post).softmax(dim=1)


def losers_flipped(y: Tensor, post: Tensor) -> Tensor:
    """The anti-Hebbian sign flip: +y for the unit with the largest potential in a row, −y for all others.

    Ties go to the first unit, so each row has exactly one winner. Journé et al. 2023, arXiv:2209.11883.
    """
    winner = post.argmax(dim=1, keepdim=True)
    return y.neg().scatter_(1, winner, y.gather(1, winner))
