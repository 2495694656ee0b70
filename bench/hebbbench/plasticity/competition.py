"""Competition between the units of a layer, at each row: each sample, and each position of a convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hebbbench.errors import RuleError
from hebbbench.plasticity.pieces import rowwise

NOTHING = 1e-30
"""What is at most this part of a win counts as none. No weight in float32 can tell the two apart, but what follows from
such parts are subnormal numbers, with which some processors compute many times as slowly."""


@rowwise
def soft_wta(post: Tensor, temperature: float) -> Tensor:
    """Soft winner-take-all: softmax(u / τ) over units, (B, out), on a CPU with 0 for what is at most `NOTHING`.

    Args:
        post: potentials u, (B, out).
        temperature: τ; smaller is harder. The SoftHebb code's `t_invert` is 1/τ.
    """
    y = (post / temperature if temperature != 1 else post).softmax(dim=1)
    # A GPU multiplies subnormal numbers as fast as others, and would read and write all of y for it.
    return y if y.is_cuda else F.threshold(y, NOTHING, 0.0, inplace=not y.requires_grad)


@rowwise
def losers_flipped(y: Tensor, post: Tensor) -> Tensor:
    """The anti-Hebbian sign flip: +y for the unit with the largest potential in a row, −y for all others.

    Ties go to the first unit, so each row has exactly one winner. Journé et al. 2023, arXiv:2209.11883.
    """
    winner = post.max(dim=1, keepdim=True).indices  # argmax, which takes longer to find the same
    # A number is scattered, no tensor: on a GPU the latter is sorted first where bits are to repeat.
    return torch.full_like(y, -1.0).scatter_(1, winner, 1.0).mul_(y)


def k_wta(post: Tensor, k: int) -> Tensor:
    """Hard winner-take-all: 1 for the k units with the largest potentials in a row, 0 for the others, (B, out).

    Exactly k win in each row; of units that tie, the first ones. (A threshold at the k-th largest would let every
    tied unit win: all of them where all potentials are 0.)

    Args:
        post: potentials u, (B, out).
        k: number of winners, 1 … out.

    Raises:
        RuleError: the layer has fewer than k units.
    """
    units = post.shape[1]
    if not 1 <= k <= units:
        raise RuleError(f"k = {k} winners cannot be chosen among {units} units. Give k from 1 to {units}.")
    if k == 1:
        return post.new_zeros(post.shape).scatter_(1, post.argmax(dim=1, keepdim=True), 1.0)
    least = post.topk(k, dim=1).values[:, -1:]
    above, tied = post > least, post == least
    room = k - above.sum(dim=1, keepdim=True)
    return (above | (tied & (tied.cumsum(dim=1) <= room))).to(post.dtype)
