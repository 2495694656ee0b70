"""Dead units, by four definitions that do not agree with each other. Each is the share of a layer's units, 0 … 1.

A unit of a convolution is a channel, and its rows are samples × positions. The two definitions by activity rest on
counts, which may be added up over batches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FAINT = 0.01
"""A unit whose mean step is under this share of the layer's largest gets almost no updates."""

UNMOVED = 0.99
"""A weight vector whose cosine to its first draw is above this still is that draw."""

SELDOM = 0.1
"""A unit that wins less often than this share of an even split hardly ever wins."""


def update_dead(a: Tensor) -> float | None:
    """Share of units with a_k < 1 % of max a: those that the rule leaves alone. None if nothing moved.

    Args:
        a: mean step size of each unit over training, (out,).
    """
    largest = a.max()
    return None if largest == 0 else (a < FAINT * largest).double().mean().item()


def weight_dead(first: Tensor, last: Tensor) -> float:
    """Share of units with cos(w_k(0), w_k(T)) > 0.99: those still where they were drawn.

    A number for what Liuson 2023 judges by eye, weights "indistinguishable from random noise". Length does not count.

    Args:
        first, last: the weights before and after training, (out, in).
    """
    return (F.cosine_similarity(first, last, dim=1) > UNMOVED).double().mean().item()


def active(y: Tensor) -> Tensor:
    """Whether each unit is active on any row, max_n y_nk > 0, (K,) as 0 or 1.

    Args:
        y: activity, (n, K).
    """
    return (y.amax(0) > 0).long()


def wins(y: Tensor) -> Tensor:
    """On how many rows each unit is the most active one, (K,).

    Of units that tie, the first wins; a row on which no unit is active has no winner.

    Args:
        y: activity, (n, K).
    """
    strongest, winner = y.max(1)
    return torch.bincount(winner[strongest > 0], minlength=y.shape[1])


def never_active(times: Tensor) -> float:
    """Share of units with a count of 0, for counts (K,), as `active` gives them."""
    return (times == 0).double().mean().item()


def seldom_winning(times: Tensor, rows: int) -> float:
    """Share of units that win fewer than 0.1/K of the rows, for counts (K,), as `wins` gives them."""
    return (times < SELDOM * rows / len(times)).double().mean().item()


def activation_dead(y: Tensor) -> float:
    """Share of units that are active on no sample, max_n y_nk ≤ 0, for y (n, K)."""
    return never_active(active(y))


def win_dead(y: Tensor) -> float:
    """Share of units that are a sample's most active one in fewer than 0.1/K of the samples, for y (n, K)."""
    return seldom_winning(wins(y), len(y))
