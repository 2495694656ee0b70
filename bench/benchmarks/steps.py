"""One training step of each rule, as a ratio to backprop's in the same network, precision and run."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count as count_from

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timing import Case, at_once, repeated
from hebbbench import decay, hebb, registry, soft_wta
from hebbbench.cell import cells
from hebbbench.plasticity.signals import post_rows, pre_of, weight_rows
from hebbbench.training.learner import Learner
from hebbbench.training.network import build_model
from hebbbench.training.recording import CudaRecorder
from hebbbench.training.replay import Replay, can_replay
from hebbbench.training.work import count

SHAPE = (32, 32, 3)
RULES = {"deephebb": ("bp", "ghl", "sign", "softhebb"), "fasthebb": ("bp", "swta_fh", "hpca")}
PRECISIONS = ("float32", "mixed", "bfloat16")
GOALS = {"ghl": 1.45, "softhebb": 0.78, "swta_fh": 0.85, "hpca": 0.85}
"""The ratio to `bp` that a rule is to stay under."""


def learner(network: str, rule: str, precision: str, device: torch.device) -> Learner:
    """A rule under cifar10-NETWORK with its own recipe, at the convolutions: what all published timings compare."""
    changes = {"precision": precision, "plastic_unsupervised": None}
    protocol = registry.protocol(f"cifar10-{network}").model_copy(update=changes)
    (cell,) = cells(protocol, [rule], [0], {})
    return Learner(cell, SHAPE, 10, device)


def cases(network: str, precision: str, x: Tensor, labels: Tensor) -> tuple[dict[str, Case], dict[str, float]]:
    """The steps of one comparison, and each one's work in forward passes, counted.

    As in a run, on a GPU a rule's steps are replayed if they can be. `bp again` is the control: its distance from 1 is
    the noise. `plain PyTorch` is backprop as anybody would write it, one operation at a time.
    """
    device = x.device
    found: dict[str, Case] = {}
    work = {}
    for name in (*RULES[network], "bp again"):
        own = learner(network, name.split()[0], precision, device)
        done = count(own, x, labels)
        work[name] = done.step / done.forward
        step = Replay(own, CudaRecorder(device), print).step if can_replay(own) else own.step
        found[name] = repeated(numbered(step, x, labels), at_once(device))
    plain = plain_step(network, precision, device)
    found["plain PyTorch"] = repeated(lambda: plain(x, labels), at_once(device))
    work["plain PyTorch"] = work["bp"]
    return found, work


def numbered(step: Callable[..., object], x: Tensor, labels: Tensor) -> Callable[[], object]:
    """A learner's step on this batch, each time with the next number."""
    numbers = count_from(1)
    return lambda: step(x, labels, next(numbers), 0.0)


def plain_step(network: str, precision: str, device: torch.device) -> Callable[[Tensor, Tensor], None]:
    """The same network and optimizer as `bp`, as anybody would write it."""
    protocol = registry.protocol(f"cifar10-{network}")
    model = build_model(network, protocol.architecture.options, SHAPE, 10)
    model = nn.Sequential(model.body, model.head).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def step(x: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()

    return step


def ghl_error(device: torch.device) -> float:
    """Largest difference of GHL's Hebbian term from explicit patches, over its largest entry, on one layer."""
    torch.manual_seed(0)
    layer = nn.Conv2d(24, 96, 3, padding=1, bias=False).to(device, memory_format=torch.channels_last)
    x = torch.randn(8, 24, 16, 16, device=device).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        output = layer(x)
        pre, post, weight = pre_of(x, output, layer), post_rows(output, layer), weight_rows(layer.weight)
        y = soft_wta(post, 1.0)
        ours = hebb(y, pre) - decay(y * post, weight)
        rows, wide = pre.rows.double(), y.double()
        explicit = (wide.T @ rows - (wide * post.double()).sum(0)[:, None] * weight.double()) / len(rows)
    return ((ours - explicit).abs().max() / explicit.abs().max()).item()
