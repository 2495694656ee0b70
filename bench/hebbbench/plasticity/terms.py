"""The terms equations are made of. Letters as in the papers: x (B, in), u and y (B, out), w (out, in)."""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor

from hebbbench.plasticity.correlation import Correlation, far_fewer_rows
from hebbbench.plasticity.pieces import Rows
from hebbbench.plasticity.signals import Pre
from hebbbench.world import present


def hebb(a: Tensor, pre: Pre) -> Tensor:
    """⟨a xᵀ⟩, the Hebbian term: the mean over rows of the outer product, shape (out, in).

    Args:
        a: postsynaptic factor, (B, out).
        pre: presynaptic activity, rows (B, in).
    """
    return pre.outer(a)


def decay(a: Tensor, weight: Tensor) -> Tensor:
    """⟨a⟩ w, the forgetting term: each unit's weights times the mean of its factor, shape (out, in).

    Args:
        a: the factor that drives forgetting, (B, out); Oja's is y².
        weight: w, (out, in).
    """
    factor = present().mean(a.mean(0))
    return cast(Tensor, a.scaled(factor, weight)) if isinstance(a, Rows) else factor.unsqueeze(1) * weight


def layer_max(delta: Tensor) -> Tensor:
    """The update divided by its largest magnitude in the layer, so that no weight moves by more than the rate.

    With it the sum and the mean over a batch are the same update, and the number of steps, not of samples,
    decides how much is learnt. Source: the public code of SoftHebb (arXiv:2209.11883) and GHL (arXiv:2601.21367).
    """
    least, most = delta.aminmax()  # one pass, where |Δw| would be written out first
    return delta / (torch.maximum(most, -least) + 1e-30)


def norm_rate(weight: Tensor, power: float) -> Tensor:
    """|‖w_k‖ − 1|^q, one factor a unit, shape (out, 1): units near unit norm have almost finished learning.

    Journé et al. 2023, arXiv:2209.11883, with the absolute value that their code has.
    """
    norms: Tensor = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
    return (norms.sub(1).abs() + 1e-10).pow(power)


def activity(post: Tensor, kind: Literal["linear", "relu", "tanh", "triangle"]) -> Tensor:
    """y = f(u), the activity a rule takes for the postsynaptic factor, (B, out).

    linear: u itself. relu, tanh: of u. triangle: relu(u − ū), ū the row's mean over units (Coates, Lee & Ng 2011).
    """
    match kind:
        case "linear":
            return post
        case "relu":
            return post.relu()
        case "tanh":
            return post.tanh()
        case "triangle":
            return (post - post.mean(dim=1, keepdim=True)).relu()


def correlation(a: Tensor) -> Tensor:
    """⟨a aᵀ⟩, what the units of a layer fire together, shape (out, out).

    Of a wide layer and few rows it is a stand-in, written out only if more is asked than its product with weights, or
    that of its lower triangle.

    Args:
        a: postsynaptic factor, (B, out).
    """
    found = Correlation(a)
    return cast(Tensor, found) if far_fewer_rows(a) else present().mean(found.whole())


def cosine(pre: Pre, post: Tensor, weight: Tensor) -> Tensor:
    """w x / (‖w‖ ‖x‖), the match of direction alone, within [−1, 1], (B, out). 0 where x or w is 0."""
    lengths, norms = pre.squared_norm.sqrt(), torch.linalg.vector_norm(weight, dim=1)
    if isinstance(post, Rows):
        return cast(Tensor, post.cosine(lengths, norms))
    norms = torch.outer(lengths, norms)
    return (post / norms.clamp_min(torch.finfo(post.dtype).tiny)).clamp(-1, 1)


def draw_counter(weight: Tensor) -> Tensor:
    """Where a rule's own random draws start: an integer scalar for `state`, different for each layer and seed.

    It is the sum of the bits of the weights as drawn, so it is the same in every order of summation, on every
    device and at every precision. `permuted`, `resampled` and `uniform` seed one generator from it and move it on by
    1: a cell that is repeated, or stopped and resumed, draws the same.

    Args:
        weight: w at the start, (out, in).
    """
    return weight.detach().float().contiguous().view(torch.int32).sum()


def permuted(a: Tensor, counter: Tensor) -> Tensor:
    """The entries of `a` in random order, same shape. Moves `counter` (see `draw_counter`) on, in place."""
    order = torch.randperm(a.numel(), generator=_generator(counter)).to(a.device)
    return a.flatten()[order].view_as(a)


def resampled(a: Tensor, counter: Tensor) -> Tensor:
    """Entries drawn from those of `a` with replacement, same shape. Moves `counter` on, in place."""
    drawn = torch.randint(a.numel(), (a.numel(),), generator=_generator(counter)).to(a.device)
    return a.flatten()[drawn].view_as(a)


def uniform(shape: tuple[int, ...], counter: Tensor) -> Tensor:
    """Numbers uniform on [−1, 1], float32. Moves `counter` (see `draw_counter`) on, in place."""
    return (2 * torch.rand(shape, generator=_generator(counter)) - 1).to(counter.device)


def _generator(counter: Tensor) -> torch.Generator:
    """On the CPU, whose numbers are the same whatever device the layer is on."""
    source = torch.Generator().manual_seed(int(counter))
    counter += 1
    return source
