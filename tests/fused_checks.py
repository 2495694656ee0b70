"""Run by test_fused.py where Triton interprets kernels on the CPU: every rule with and without kernels made for it."""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from hebbbench import Pre, Rule, decay, hebb, registry
from hebbbench.plasticity import attach
from hebbbench.plasticity.attach import PlasticLayer

SHAPES = {"linear": (9, (7, 21)), "convolution": (3, (2, 3, 6, 5))}


def layer_of(kind: str) -> nn.Linear | nn.Conv2d:
    torch.manual_seed(3)
    if kind == "linear":
        return nn.Linear(21, 9)
    return nn.Conv2d(3, 12, 3, padding=1, bias=False).to(memory_format=torch.channels_last)


class Overwriting(Rule):
    """Writes to what its equation has used: later than that, in the order of its lines."""

    def delta(self, pre: Pre, post: Tensor, weight: Tensor) -> Tensor:
        mean = post.mean(0)
        y = post - mean
        mean.mul_(0)
        return hebb(y, pre) - decay(y, weight)


def update(rule: str, kind: str, dtype: torch.dtype) -> tuple[Tensor, bool, bool]:
    """What one step leaves in `grad`; whether the rule still is shown stand-ins, and whether it ever could be."""
    module = layer_of(kind)
    made = Overwriting() if rule == "overwriting" else registry.rule(rule).create({}, "a layer")
    layer = PlasticLayer("layer", module, made)
    could = layer._fused
    x = torch.randn(SHAPES[kind][1], generator=torch.Generator().manual_seed(5))
    x = x if kind == "linear" else x.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(len(x)) % 3
    outside: dict[str, Tensor] = {"labels": labels}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        output = module(x)
    with torch.no_grad():
        layer.observe(x, output)
        layer.begin(**outside)
    slope = torch.randn(module.weight.shape, generator=torch.Generator().manual_seed(6))
    outside["grad"] = slope if kind == "linear" else slope.contiguous(memory_format=torch.channels_last)
    outside["error"] = torch.randn(len(x), 3, generator=torch.Generator().manual_seed(7))
    outside["input"] = x.flatten(1)
    layer.learn(**outside)
    assert module.weight.grad is not None
    return module.weight.grad.clone(), layer._fused, could


def main() -> None:
    found = []
    rules = [rule for rule in registry.rule_names() if registry.rule(rule).shape == "delta"]
    for rule in [*rules, "overwriting"]:
        for kind in SHAPES:
            for dtype in (torch.float32, torch.bfloat16):
                attach.in_use = lambda device: False  # type: ignore[attr-defined]
                plain, _, could = update(rule, kind, dtype)
                attach.in_use = lambda device: True  # type: ignore[attr-defined]
                fused, still, _ = update(rule, kind, dtype)
                distance = ((plain - fused).abs().max() / plain.abs().max().clamp_min(1e-30)).item()
                case = {"rule": rule, "kind": kind, "dtype": str(dtype)}
                found.append({**case, "distance": distance, "fused": could and still})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
