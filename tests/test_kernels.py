"""Pooling and padding by kernels: against torch, in Triton's interpreter on the CPU and, where there is one, on a GPU.

The interpreter has to be chosen before Triton is imported, so this file is run once as a program of its own.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import subprocess
import sys
import traceback
from collections import OrderedDict
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hebbbench import kernels
from hebbbench.kernels import padding, patches, pools, rows

WINDOWS = [(2, 2, 0), (3, 2, 1), (4, 2, 1), (2, 1, 0), (3, 1, 1), (2, 3, 0), ((2, 3), (1, 2), (1, 0))]
SMALL = [(2, 5, 7, 9), (1, 48, 6, 6)]
MARGINS = [(1, 1, 1, 1), (2, 2, 2, 2), (0, 3, 1, 0)]
DEEPHEBB = {"max": [(64, 96, 32, 32), (64, 384, 16, 16)], "avg": [(64, 1536, 8, 8)], "avg4": [(64, 1536, 8, 8)]}
KINDS = {"max": (pools.Max, F.max_pool2d), "avg": (pools.Mean, F.avg_pool2d)}

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")


def drawn(shape, dtype=torch.float32, device="cpu", seed=0, ties=True):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    x = (2 * x).round() if ties else x
    return x.to(device, dtype).to(memory_format=torch.channels_last)


def same(found, exact):
    """found is `exact`, a float32 tensor on the CPU, in its own dtype, to the last bit."""
    rounded = exact.to(found.dtype)
    if found.dtype == torch.bfloat16 and not found.is_cuda:
        # The interpreter cuts off what a GPU rounds.
        cut = (exact.contiguous().view(torch.int32) & -(2**16)).view(torch.float32).bfloat16()
        rounded = torch.where(found == cut, cut, rounded)
    torch.testing.assert_close(found.cpu(), rounded, rtol=0, atol=0, equal_nan=True)


def near(found, exact):
    """found is `exact`, a float32 tensor on the CPU, but for the order of a sum and one rounding to its dtype."""
    rtol = 1e-6 if found.dtype == torch.float32 else 2**-8 if found.is_cuda else 2**-7
    torch.testing.assert_close(found.cpu().float(), exact, rtol=rtol, atol=1e-6)


def compare(ours, theirs, x):
    """Both ways: ours on x's device and in its dtype, theirs on the CPU in float32."""
    a, b = x.clone().requires_grad_(), x.cpu().float().clone().requires_grad_()
    y, exact = ours(a), theirs(b)
    assert y.is_contiguous(memory_format=torch.channels_last)
    same(y.detach(), exact.detach())
    slopes = drawn(y.shape, y.dtype, y.device, seed=1, ties=False)
    y.backward(slopes)
    exact.backward(slopes.cpu().float())
    assert a.grad.is_contiguous(memory_format=torch.channels_last)
    near(a.grad, b.grad)


def pooled(kind, window, x):
    ours, theirs = KINDS[kind]
    compare(lambda a: ours.apply(a, pools.Window.of(*window)), lambda b: theirs(b, *window), x)


def padded(margins, x, dtype):
    compare(
        lambda a: padding.Reflection.apply(a, margins, dtype), lambda b: F.pad(b, margins, mode="reflect"), x.to(dtype)
    )


def pools_small(kind, device="cpu"):
    for shape, window in product(SMALL, WINDOWS):
        pooled(kind, window, drawn(shape, device=device))
    for window in WINDOWS[:3]:
        pooled(kind, window, drawn(SMALL[0], torch.bfloat16, device))
    for shape in [(1, 130, 5, 5), (3, 1, 5, 4)]:
        pooled(kind, (3, 2, 1), drawn(shape, device=device))


def maxima(device="cpu"):
    pools_small("max", device)


def means(device="cpu"):
    pools_small("avg", device)


def peculiar(device="cpu"):
    """Numbers that are none, infinities, zeros of either sign."""
    x = drawn((1, 2, 8, 8), device=device)
    x[:, 0, 1, 2] = float("nan")
    x[:, 0, 2, 2] = float("nan")
    x[:, 0, 4:, 4:] = float("-inf")
    x[:, 1, :3, :3] = float("-inf")
    x[:, 1, 4:, 4:] = torch.tensor([-0.0, 0.0]).repeat(2).to(device)
    for window in WINDOWS[:3]:
        pooled("max", window, x)
        y, winners = pools.max_of(x, pools.Window.of(*window), True)
        wanted = F.max_pool2d(x.cpu(), *window)
        assert torch.equal(torch.signbit(y).cpu(), torch.signbit(wanted))
        assert winners.dtype == torch.uint8
        same(pools.max_of(x, pools.Window.of(*window), False)[0], wanted)


def reflections(device="cpu"):
    for margins, shape in product(MARGINS, [(2, 3, 5, 4), (1, 32, 4, 5)]):
        padded(margins, drawn(shape, device=device, ties=False), torch.float32)
    padded(MARGINS[1], drawn((2, 3, 5, 4), device=device), torch.bfloat16)


def casts(device="cpu"):
    """From float32 to bfloat16 on the way, and back again."""
    x, margins = drawn((2, 3, 5, 4), device=device, ties=False), MARGINS[1]
    y = padding.reflected(x, margins, torch.bfloat16)
    assert y.dtype == torch.bfloat16
    compare(
        lambda a: padding.Reflection.apply(a, margins, torch.bfloat16),
        lambda b: F.pad(b, margins, mode="reflect"),
        x,
    )


def other_layouts(device="cpu"):
    """Slopes that come channel by channel, or expanded."""
    x = drawn((2, 5, 6, 6), device=device)
    for ours, theirs in KINDS.values():
        for slopes in (
            drawn((2, 5, 3, 3), device=device).contiguous(),
            torch.ones((), device=device).expand(2, 5, 3, 3),
        ):
            a, b = x.clone().requires_grad_(), x.cpu().clone().requires_grad_()
            ours.apply(a, pools.Window.of(2, 2, 0)).backward(slopes)
            theirs(b, 2).backward(slopes.cpu())
            near(a.grad, b.grad)


def as_patches(device="cpu"):
    """Convolutions of few channels, forward and backward, and their patches in the order of a weight's rows."""
    for channels, kernel, settings in [
        (3, 5, {"padding": 2}),
        (3, 5, {"padding": 2, "padding_mode": "reflect"}),
        (1, 3, {"padding": 1, "stride": 2}),
        (5, (2, 3), {"stride": (1, 2)}),
    ]:
        layer = nn.Conv2d(channels, 16, kernel, bias=False, **settings).to(device, memory_format=torch.channels_last)
        geometry = patches.Geometry.of(layer)
        x = drawn((2, channels, 9, 7), device=device, ties=False)
        wide = patches.patches(x, geometry, torch.float32)
        own = layer.weight[0].numel()
        assert wide.shape[1] == -(-own // 8) * 8
        assert not wide[:, own:].any()
        (plain := copy.deepcopy(layer)).cpu()
        theirs = plain(x.cpu())
        ours = patches.Product.apply(x, layer.weight, geometry, torch.float32)
        flat = theirs.detach().permute(0, 2, 3, 1).reshape(len(wide), -1)
        torch.testing.assert_close(wide[:, :own].cpu() @ plain.weight.detach().permute(0, 2, 3, 1).flatten(1).T, flat)
        torch.testing.assert_close(ours.cpu(), theirs)
        slopes = drawn(theirs.shape, seed=1, ties=False)
        ours.backward(slopes.to(device))
        theirs.backward(slopes)
        torch.testing.assert_close(layer.weight.grad.cpu(), plain.weight.grad, rtol=1e-4, atol=1e-5)


def many_rows(device="cpu"):
    """Sums and extremes to which many programs add several tiles each, the last of them partly beyond the end."""
    rows.PROGRAMS, usual = 3, rows.PROGRAMS
    for shape in [(1000, 24), (61, 200), (5, 17)]:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(device)
        leaf = rows.Leaf("matrix", x)
        torch.testing.assert_close(rows.column_mean(leaf, x.shape, x.device), x.mean(0), rtol=1e-5, atol=1e-6)
        assert rows.extremes(leaf, x.shape, x.device) == x.aminmax()
        x[-1, -1] = torch.nan
        with pytest.raises(rows.Changed):
            rows.extremes(leaf, x.shape, x.device)
        assert all(extreme.isnan() for extreme in rows.extremes(rows.Leaf("matrix", x), x.shape, x.device))
    rows.PROGRAMS = usual


CHECKS = {
    check.__name__: check
    for check in (maxima, means, peculiar, reflections, casts, other_layouts, as_patches, many_rows)
}


@pytest.fixture(scope="module")
def interpreted():
    """What each check has to say in the interpreter: nothing, or how it failed."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", CHECKS)
def test_kernels_do_in_the_interpreter_what_torch_does(interpreted, name):
    assert interpreted[name] == ""


def test_triton_is_imported_only_to_launch_a_kernel(interpreted):
    assert interpreted["imported beforehand"] is False


@gpu
@pytest.mark.parametrize("name", CHECKS)
def test_kernels_do_on_a_gpu_what_torch_does(name):
    assert kernels.available(torch.device("cuda"))
    CHECKS[name]("cuda")


@gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("pool", DEEPHEBB)
def test_deephebbs_pools_are_torchs(pool, dtype):
    window = (2, 2, 0) if pool == "avg" else (4, 2, 1)
    for shape in DEEPHEBB[pool]:
        pooled("max" if pool == "max" else "avg", window, drawn(shape, dtype, "cuda", ties=pool == "max"))


@gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_deephebbs_paddings_are_torchs(dtype):
    for shape, margin in [((64, 3, 32, 32), 2), ((64, 96, 16, 16), 1), ((64, 384, 8, 8), 1)]:
        padded((margin,) * 4, drawn(shape, dtype, "cuda", ties=False), dtype)


@gpu
def test_a_recorded_step_leaves_the_same_bits():
    model = nn.Sequential(nn.MaxPool2d(4, 2, 1), nn.AvgPool2d(2))
    pools.quicken(model)
    x = drawn((64, 96, 32, 32), torch.bfloat16, "cuda").requires_grad_()

    def step():
        padded = padding.reflect_pad(x, (1, 1, 1, 1), torch.bfloat16)
        return torch.autograd.grad(model(padded).square().sum(), x)[0]

    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        eager = [step() for _ in range(3)]
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = step()
    graph.replay()
    for found in eager:
        assert torch.equal(found, recorded)


@gpu
def test_on_a_gpu_the_kernels_take_what_they_can():
    model = small().cuda()
    pools.quicken(model)
    x = drawn((2, 4, 9, 9), device="cuda").requires_grad_()
    assert model.one(x).grad_fn.name() == "MaxBackward"
    assert model.two(x).grad_fn.name() == "MeanBackward"
    assert padding.reflect_pad(x, MARGINS[0], torch.bfloat16).grad_fn.name() == "ReflectionBackward"
    for other in (x.contiguous(), x.double(), x[0]):
        assert model.one(other).grad_fn.name() != "MaxBackward"
        torch.testing.assert_close(model.one(other), F.max_pool2d(other, 4, 2, 1), rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(model.one(x), F.max_pool2d(x, 4, 2, 1), rtol=0, atol=0)


def small():
    return nn.Sequential(OrderedDict(one=nn.MaxPool2d(4, 2, 1), norm=nn.BatchNorm2d(96), two=nn.AvgPool2d(2)))


def test_quickening_leaves_the_cpu_to_torch():
    plain = nn.Sequential(nn.MaxPool2d(4, 2, 1), nn.AvgPool2d((3, 2), 2, 1))
    quick = copy.deepcopy(plain)
    pools.quicken(quick)
    x = drawn((2, 4, 9, 9)).requires_grad_()
    y, z = plain(x), quick(x)
    assert torch.equal(y, z)
    assert z.grad_fn.name() == y.grad_fn.name()
    assert torch.equal(
        padding.reflect_pad(x, (1, 2, 1, 0), torch.bfloat16), F.pad(x, (1, 2, 1, 0), mode="reflect").bfloat16()
    )


def test_quickening_keeps_state_and_hooks_and_survives_a_copy():
    model = small()
    keys, seen = list(model.state_dict()), []
    model.one.register_forward_hook(lambda module, args, out: seen.append(module))
    pools.quicken(model)
    pools.quicken(model)
    assert list(model.state_dict()) == keys
    twin = copy.deepcopy(model)
    twin.load_state_dict(model.state_dict())
    assert twin.one.forward.args == (twin.one,)
    x = drawn((2, 96, 8, 8))
    assert torch.equal(model(x), twin(x))
    assert seen == [model.one, twin.one]


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(3, dilation=2),
        nn.MaxPool2d(3, ceil_mode=True),
        nn.MaxPool2d(3, return_indices=True),
        nn.AvgPool2d(3, ceil_mode=True),
        nn.AvgPool2d(3, divisor_override=2),
        nn.AvgPool2d(3, padding=1, count_include_pad=False),
        nn.AdaptiveAvgPool2d(1),
        type("Other", (nn.MaxPool2d,), {})(3),
    ],
    ids=str,
)
def test_other_pools_are_left_alone(pool):
    pools.quicken(pool)
    assert "forward" not in vars(pool)


def test_without_a_gpu_or_with_the_switch_there_are_no_kernels(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for device in (cpu, cuda)[: 1 if torch.cuda.is_available() else 2]:
        assert not kernels.available(device)
        assert kernels.version(device) is None
    monkeypatch.setenv(kernels.SWITCH, "off")
    kernels.available.cache_clear()
    assert not kernels.in_use(cuda)
    kernels.available.cache_clear()


def test_a_windows_size_is_torchs():
    for window in WINDOWS:
        assert pools.Window.of(*window).usual()
        assert pools.Window.of(*window).over((7, 9)) == F.max_pool2d(torch.zeros(1, 1, 7, 9), *window).shape[2:]
    assert not pools.Window.of(6, 6, 0).usual()
    assert not pools.Window.of(2, 2, 2).usual()
    assert not pools.Window.of(2, 0, 0).usual()


@pytest.mark.parametrize("channels", [1, 3, 40, 96, 130, 192, 384, 1536])
def test_a_programs_block_is_of_one_size(channels):
    down, across = pools.blocks(channels)
    assert down * across == pools.ELEMENTS
    assert across <= 128
    assert channels % across == 0 or channels % 32


def report():
    """What each check says, as the last line on standard output."""
    said = {"imported beforehand": "triton" in sys.modules}
    for name, check in CHECKS.items():
        try:
            check()
            said[name] = ""
        except Exception:
            said[name] = traceback.format_exc()
    print(json.dumps(said))


if __name__ == "__main__":
    report()
