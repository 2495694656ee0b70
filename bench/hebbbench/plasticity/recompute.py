"""Activity computed anew in the backward pass, so that depth costs the memory of one tensor a segment.

A segment (a residual block, say) forgets what it computed and runs once more when the backward pass reaches it. Rules
must take notice of one of the two runs: the second, whose activity is let go as soon as the segment's gradients have
come. Numbers stay the same to the last bit, and the second run leaves running statistics alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

_first_run: ContextVar[bool] = ContextVar("_first_run", default=False)


def will_run_again() -> bool:
    """Whether the current pass through a segment is the first of two."""
    return _first_run.get()


def run_again_backward(segments: Sequence[nn.Module]) -> None:
    """Have these modules, none within another, compute their activity anew in every backward pass."""
    for segment in segments:
        segment.forward = partial(_forward, segment.forward, _batch_norms(segment))


def _forward(forward: Callable[[Tensor], Tensor], norms: list[nn.Module], x: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(x)
    # Not stopped early: the forward hook of a segment's last layer has to run, too.
    with set_checkpoint_early_stop(False):
        output: Tensor = checkpoint(forward, x, use_reentrant=False, context_fn=partial(_two_runs, norms))
    return output


def _two_runs(norms: list[nn.Module]) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return _first(), _second(norms)


@contextmanager
def _first() -> Iterator[None]:
    token = _first_run.set(True)
    try:
        yield
    finally:
        _first_run.reset(token)


@contextmanager
def _second(norms: list[nn.Module]) -> Iterator[None]:
    """With a momentum of 0 a batch norm's running statistics stay as the first run has left them."""
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None  # type: ignore[assignment]
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def _batch_norms(segment: nn.Module) -> list[nn.Module]:
    return [module for module in segment.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
