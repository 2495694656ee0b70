"""Building the network that a cell trains: its layers, how its plastic weights start, and where it normalises."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from hebbbench import registry
from hebbbench.data.batches import Layout
from hebbbench.errors import ProtocolError, one_line, place_in, suggestion
from hebbbench.plasticity.attach import Plasticity
from hebbbench.plasticity.select import Layer
from hebbbench.plasticity.signals import weight_rows
from hebbbench.rng import generator
from hebbbench.sections import Init

Network = Any
"""An `nn.Module` with a `body`, a `head` and a `layout` (see architectures/); torch types no such thing."""

ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.ELU, nn.SiLU, nn.LeakyReLU)


def architecture_layout(name: str) -> Layout:
    """Whether an architecture takes images (N, C, H, W) or flat rows (N, features)."""
    kind: Network = registry.architecture(name)
    layout: Layout = kind.layout
    return layout


def build_model(
    name: str, options: dict[str, object], shape: tuple[int, int, int], classes: int, *, outline: bool = False
) -> Network:
    """The architecture of that name for images (height, width, channels).

    Args:
        outline: build it on torch's meta device, where tensors have shapes and no values: at no cost, whatever its
            size.

    Raises:
        ProtocolError: an option does not exist, the network cannot be built with these, or it is not what an
            architecture is.
    """
    kind = registry.architecture(name)
    known = [key for key in inspect.signature(kind).parameters if key not in ("input_shape", "classes")]
    for option in options:
        if option not in known:
            raise ProtocolError(f"architecture '{name}' has no option '{option}'. {suggestion(option, known)}")
    _check_choices(name, kind, options)
    height, width, channels = shape
    try:
        with torch.device("meta") if outline else nullcontext():
            model = kind(input_shape=(channels, height, width), classes=classes, **options)
    except Exception as error:
        raise ProtocolError(
            f"architecture '{name}' cannot be built with {options} for {height}×{width}×{channels} images: "
            f"{one_line(error).removesuffix('.')}{place_in(error, registry.architecture_path(name))}."
        ) from error
    if model.layout not in get_args(Layout):
        raise ProtocolError(f"architecture '{name}': layout = {model.layout!r}. Valid: {', '.join(get_args(Layout))}.")
    for part, what in (("body", "what makes the features"), ("head", "the read-out behind them")):
        if not isinstance(getattr(model, part, None), nn.Module):
            raise ProtocolError(f"architecture '{name}' has no module `{part}`, {what}. Set self.{part} in __init__.")
    return model


def _check_choices(name: str, kind: type[nn.Module], options: dict[str, object]) -> None:
    """Refuse by their alternatives values of options that are one of a few."""
    types = get_type_hints(kind.__init__)
    for option, value in options.items():
        if get_origin(types.get(option)) is Literal and value not in get_args(types[option]):
            valid = suggestion(str(value), map(str, get_args(types[option])))
            raise ProtocolError(f"architecture '{name}': {option} = {value!r} is none of its values. {valid}")


def initialise(layers: Iterable[Layer], init: Init, seed: int) -> None:
    """Draw the plastic layers' weights anew, unless the architecture's own draw stands. Laws: see `Init`."""
    if init.radius is None:
        return
    for index, weight in enumerate(layer.weight for layer in layers):
        fan_in = weight_rows(weight.detach()).shape[1]
        source = generator(seed, "plastic initialisation", index)
        with torch.no_grad():
            if init.law == "normal":
                weight.normal_(0, init.radius / math.sqrt(fan_in), generator=source)
            else:
                weight.uniform_(0, math.sqrt(3 * init.radius**2 / fan_in), generator=source)


def drops(model: nn.Module) -> bool:
    """Whether the model draws random numbers while it trains: dropout of activities, or of whole branches (timm's)."""
    return any(
        (isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0) or getattr(module, "drop_prob", None)
        for module in model.modules()
    )


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """The model's batch-norm layers, the only ones with running statistics."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def normalisations_before(
    model: Network, plasticity: Plasticity, shape: tuple[int, int, int], device: torch.device
) -> list[tuple[nn.Module, int]]:
    """Each batch norm with the index of the plastic layer it stands before (the number of layers if behind all).

    Found by running a blank image once in inference mode and watching the order of the calls.
    """
    norms = batch_norms(model)
    plastic = [layer.module for layer in plasticity.layers]
    passed = 0
    before: dict[int, int] = {}

    def note(module: nn.Module, _inputs: object) -> None:
        nonlocal passed
        if any(module is layer for layer in plastic):
            passed += 1
        else:
            before.setdefault(id(module), passed)

    handles = [module.register_forward_pre_hook(note) for module in (*norms, *plastic)]
    model.eval()
    with torch.no_grad():
        model(blank_input(model, shape, 1, device))
    for handle in handles:
        handle.remove()
    return [(norm, before.get(id(norm), len(plastic))) for norm in norms]


def blank_input(model: Network, shape: tuple[int, int, int], samples: int, device: torch.device | str) -> Tensor:
    """Zeros of the form that a network takes: images (N, C, H, W), or flat rows or tokens (N, …).

    Args:
        shape: of an image, (height, width, channels).
    """
    height, width, channels = shape
    kind = torch.int64 if model.layout == "tokens" else torch.get_default_dtype()
    x = torch.zeros(samples, channels, height, width, dtype=kind, device=device)
    return x if model.layout == "image" else x.flatten(1)


def activations(model: nn.Module) -> dict[str, nn.Module]:
    """Each linear or convolutional layer's name → the activation that comes next in the order of modules, if any."""
    found: dict[str, nn.Module] = {}
    last = ""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            last = name
            found[name] = nn.Identity()
        elif isinstance(module, ACTIVATIONS) and last:
            found[last] = module
            last = ""
    return found
