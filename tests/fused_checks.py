"""Run by test_fused.py where Triton interprets kernels on the CPU: every rule with and without kernels made for it."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hebbbench import Pre, Rule, decay, hebb, registry
from hebbbench.plasticity import layer as home
from hebbbench.plasticity.layer import PlasticLayer

SHAPES = {"linear": (9, (7, 21)), "convolution": (3, (2, 3, 6, 5))}


def layer_of(kind: str) -> nn.Linear | nn.Conv2d:
    torch.manual_seed(3)
    if kind == "linear":
        return nn.Linear(21, 9)
    return nn.Conv2d(3, 12, 3, padding=1, bias=False).to(memory_format=torch.channels_last)


def equation(delta: Callable[..., Tensor]) -> type[Rule]:
    """A rule of this equation of post, pre, weight and grad."""

    class Given(Rule):
        def delta(self, pre: Pre, post: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
            return delta(post, pre, weight, grad)

    return Given


def overwriting(post: Tensor, pre: Pre, weight: Tensor, grad: Tensor) -> Tensor:
    """Writes to what its equation has used: later than that, in the order of its lines."""
    mean = post.mean(0)
    y = post - mean
    mean.mul_(0)
    return hebb(y, pre) - decay(y, weight)


def in_place(post: Tensor, pre: Pre, weight: Tensor, grad: Tensor) -> Tensor:
    direction = -0.1 * weight
    direction.sub_(grad)
    direction.add_(hebb(post, pre))
    return direction


def aliased(post: Tensor, pre: Pre, weight: Tensor, grad: Tensor) -> Tensor:
    y = post - post.mean(0)
    z = y
    z *= 2
    return hebb(y, pre)


def gradient_aliased(post: Tensor, pre: Pre, weight: Tensor, grad: Tensor) -> Tensor:
    a = grad * 1.0
    b = a
    b += hebb(post, pre)
    return -a


def halved(post: Tensor, pre: Pre, weight: Tensor, grad: Tensor) -> Tensor:
    """Writes to a copy in the precision that the layer's output has."""
    return hebb(post.to(torch.bfloat16).mul_(0.5).float(), pre)


def differentiating(post: Tensor, pre: Pre, weight: Tensor, grad: Tensor) -> Tensor:
    with torch.enable_grad():
        scale = torch.ones(post.shape[1], requires_grad=True)
        loss = (post * scale).mean(0).square().sum() + 0.1 * scale.square().sum()
        (slope,) = torch.autograd.grad(loss, scale)
    return hebb(post * slope, pre)


def promoting(post: Tensor, pre: Pre, weight: Tensor, grad: Tensor) -> Tensor:
    return (hebb(post, pre).double() * weight.double().mean(1, keepdim=True)).float() - grad


def late(post: Tensor, pre: Pre, weight: Tensor, grad: Tensor) -> Tensor:
    gain = weight.abs().mean(1, keepdim=True)
    h = hebb(post, pre) * gain
    out = grad.sign() * h
    gain.zero_()
    return out


def halfway(post: Tensor, pre: Pre, weight: Tensor, grad: Tensor) -> Tensor:
    return grad.sign() * (hebb(post, pre) * torch.tensor(0.5))


def broadcast(post: Tensor, pre: Pre, weight: Tensor, grad: Tensor) -> Tensor:
    return 1.5 - (2 / (2 + weight.abs()) - grad) * weight.mean(0) / weight.norm(dim=1, keepdim=True)


ADVERSARIES = (
    *(overwriting, in_place, aliased, gradient_aliased, halved),
    *(differentiating, promoting, late, halfway, broadcast),
)
"""Equations that a stand-in must not get wrong: it is shown to be the tensor, or the tensor is shown."""


def update(rule: str, kind: str, dtype: torch.dtype) -> tuple[Tensor, bool, bool]:
    """What one step leaves in `grad`; whether the rule still is shown stand-ins, and whether it ever could be."""
    module = layer_of(kind)
    own = {each.__name__: each for each in ADVERSARIES}
    made = equation(own[rule])() if rule in own else registry.rule(rule).create({}, "a layer")
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
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert torch.equal(output, module(x)), "the rule wrote to the layer's output"
    return module.weight.grad.clone(), layer._fused, could


def main() -> None:
    found = []
    rules = [rule for rule in registry.rule_names() if registry.rule(rule).shape != "step"]
    for rule in [*rules, *(each.__name__ for each in ADVERSARIES)]:
        for kind in SHAPES:
            for dtype in (torch.float32, torch.bfloat16):
                home.in_use = lambda device: False  # type: ignore[attr-defined]
                plain, _, could = update(rule, kind, dtype)
                home.in_use = lambda device: True  # type: ignore[attr-defined]
                fused, still, _ = update(rule, kind, dtype)
                distance = ((plain - fused).abs().max() / plain.abs().max().clamp_min(1e-30)).item()
                case = {"rule": rule, "kind": kind, "dtype": str(dtype)}
                found.append({**case, "distance": distance, "fused": could and still})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
