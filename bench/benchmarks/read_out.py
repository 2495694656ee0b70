"""The linear probe on cached features, against one that computes features and gradients of the body at every step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.steps import SHAPE
from benchmarks.timing import Case, at_once, repeated
from hebbbench import registry
from hebbbench.training.network import build_model
from hebbbench.training.probe import Labelled, LinearProbe


def cases(x: Tensor, labels: Tensor) -> dict[str, Case]:
    """Probe steps, as many each as `at_once` says: cached; frozen for good but extracted anew; differentiated as well.

    The last is what a body does whose weights were frozen in name only.
    """
    protocol = registry.protocol("cifar10-deephebb")
    model = build_model("deephebb", protocol.architecture.options, SHAPE, 10)
    model.to(x.device, memory_format=torch.channels_last)
    with torch.no_grad():
        features = model.body.eval()(x)
    spec = protocol.probe.model_copy(update={"batch_size": len(x)})
    probe = LinearProbe(spec, features.shape[1], 10, 0, x.device)
    times = at_once(x.device)
    cached = Labelled(features.repeat(times, 1), labels.repeat(times))
    head = nn.Sequential(nn.Dropout(spec.dropout), nn.Linear(features.shape[1], 10)).to(x.device)
    optimizer = torch.optim.Adam(head.parameters(), lr=spec.lr)

    def anew(differentiated: bool) -> None:
        with torch.set_grad_enabled(differentiated):
            seen = model.body(x)
        optimizer.zero_grad(set_to_none=True)
        model.zero_grad(set_to_none=True)
        F.cross_entropy(head(seen), labels).backward()
        optimizer.step()

    return {
        "cached": lambda: probe.train_epoch(cached),
        "extracted anew": repeated(lambda: anew(False), times),
        "body differentiated": repeated(lambda: anew(True), times),
    }
