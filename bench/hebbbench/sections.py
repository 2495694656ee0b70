"""The sections of a protocol: what each part of the YAML may say, and what it means."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from hebbbench.validation import Growing, Strict, form

Fraction = Annotated[float, Field(ge=0, lt=1)]
PerLayer = PositiveFloat | Annotated[list[PositiveFloat], Field(min_length=1)]
Name = Annotated[str, form(r"^[a-z0-9][a-z0-9_-]*$", "small letters, digits, - and _")]
AxisValue = int | float | str | bool


def stands_for(text: str, value: AxisValue) -> bool:
    """Whether a text, as on the command line, names an axis value: 5e-05 may be written 5.0e-5, as protocols do."""
    if str(value) == text:
        return True
    with suppress(ValueError):
        return isinstance(value, int | float) and not isinstance(value, bool) and float(text) == value
    return False


def _finite(value: Any, where: str = "") -> Any:
    """Refuse what JSON cannot hold, deep inside free-form options: it would be hashed as something else."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _finite(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for inner in value:
            _finite(inner, where)
    elif not isinstance(value, int | float | str | bool | None) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise ValueError(f"{where} = {value!r} is neither a finite number, text, a truth value, nor a list of these")
    return value


Options = Annotated[dict[str, Any], AfterValidator(_finite)]


class Data(Growing):
    """Which samples, and how a pixel becomes a number: (pixel/255 − mean)/std, per channel.

    A teacher's inputs are numbers already: its mean and std are empty.
    """

    later: ClassVar = frozenset({"unlabelled", "whiten"})

    dataset: str
    unlabelled: str | None = Field(
        None, description="a dataset whose images rules that see no label learn from, in place of the training split"
    )
    validation: NonNegativeInt = Field(description="samples cut from the training split, by class, for tuning")
    mean: list[float]
    std: list[PositiveFloat]
    augment: Literal["none", "crop-flip", "resized-crop-flip"] = "none"
    whiten: PositiveFloat | None = Field(
        None,
        description="ZCA whitening over all pixels and channels, with this added to each variance; none by default",
    )


class Architecture(Strict):
    """An architecture's file name and its constructor's options."""

    name: str
    options: Options = {}


class Optimizer(Growing):
    """A `torch.optim` optimizer. `lr` may be one value for all plastic layers or a list, one a layer."""

    later: ClassVar = frozenset({"l1", "clip"})

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: PerLayer
    momentum: Fraction = 0.0
    nesterov: bool = False
    weight_decay: NonNegativeFloat = 0.0
    l1: NonNegativeFloat = Field(0.0, description="weight of an L1 penalty: l1·sign(w) is added to the gradient")
    clip: PositiveFloat | None = Field(
        None, description="largest norm of the gradient of all parameters together, decay left out"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Optimizer:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        if self.name != "sgd" and (self.momentum or self.nesterov):
            raise ValueError(f"momentum and nesterov belong to sgd, not to {self.name}")
        return self


class Init(Strict):
    """How plastic weights start. `radius` R is the expected norm of a unit's weight vector.

    architecture: as the architecture makes them. normal: zero-mean Gaussian of standard deviation R/√fan_in.
    positive: uniform on [0, √(3R²/fan_in)]. Both laws: Journé et al. 2023, arXiv:2209.11883.
    """

    law: Literal["architecture", "normal", "positive"] = "architecture"
    radius: PositiveFloat | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Init:
        if (self.law == "architecture") != (self.radius is None):
            raise ValueError("radius is given exactly when law is 'normal' or 'positive'")
        return self


class Training(Growing):
    """What one cell trains, and how. A recipe may override the fields that the protocol lists under `free`."""

    later: ClassVar = frozenset({"noise", "sparsity", "readout"})

    epochs: NonNegativeInt
    batch_size: PositiveInt
    schedule: Literal["joint", "layerwise"] = Field(
        "joint", description="all plastic layers at every step, or one after another (each for `epochs`)"
    )
    annealing: Literal["constant", "cosine", "linear"] = Field(
        "constant", description="of every learning rate, per step, to zero at the last step"
    )
    optimizer: Optimizer = Field(description="of the plastic weights")
    rest: Optimizer | None = Field(
        None, description="of every other parameter, trained by the true gradient; none = like the plastic ones"
    )
    init: Init = Init()
    noise: NonNegativeFloat = Field(
        0.0, description="standard deviation of Gaussian noise added to every parameter before each step"
    )
    sparsity: NonNegativeFloat = Field(
        0.0, description="weight of a penalty in the loss: mean |activity| of each plastic layer, summed over layers"
    )
    readout: Literal["frozen", "trained"] = Field(
        "frozen", description="under a local rule: as it was drawn, or trained by its own gradient as `rest` says"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Training:
        if self.rest is not None and self.rest.clip is not None:
            raise ValueError("rest.clip has no effect: optimizer.clip is of all parameters together. Set that")
        return self


class Probe(Strict):
    """The linear read-out trained on frozen features, the same for every rule (Adam, cross-entropy)."""

    epochs: PositiveInt
    batch_size: PositiveInt
    lr: PositiveFloat
    weight_decay: NonNegativeFloat = 0.0
    dropout: Fraction = 0.0
    halve_at: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [], description="fractions of the epochs after which the learning rate is halved"
    )
    standardize: bool = Field(False, description="features to zero mean and unit variance on the training split")
    statistics_samples: NonNegativeInt = Field(
        description="training samples to re-estimate the frozen body's batch-norm statistics from; 0 keeps them"
    )


class PublishedProbe(Strict):
    """The read-out as a paper ran it (Adam): its best test accuracy over the epochs is recorded, and never ranked."""

    epochs: PositiveInt
    batch_size: PositiveInt
    lr: PositiveFloat
    dropout: Fraction = 0.0
    layer_norm: bool = Field(False, description="each sample's features to zero mean and unit variance, first")


class Alignment(Growing):
    """How Hebbian the learning update is: see `hebbbench.metrics.alignment` for the definitions."""

    later: ClassVar = frozenset({"sgd"})

    window: PositiveInt = Field(200, description="last steps over which the minibatch cosines are averaged")
    sgd: bool = Field(False, description="also the cosine with the step of gradient descent, over all of training")


class Budget(Strict):
    """The most a recipe may spend."""

    epochs: NonNegativeInt


class Axis(Growing):
    """One dimension of a table: `path` (such as architecture.options.width) takes each of `values`."""

    later: ClassVar = frozenset({"rules"})

    path: str
    values: list[AxisValue] = Field(min_length=1)
    rules: list[str] = Field([], description="rules for which it varies; others take its first value only; empty = all")


class Published(Strict):
    """A number somebody printed. Shown beside ours, never ranked."""

    rule: str
    value: Annotated[float, Field(ge=-1, le=1)]
    sd: NonNegativeFloat | None = None
    metric: str = "test accuracy"
    beside: Annotated[str, form(r"^alignment\.[a-z0-9_.]+$", "alignment.LAYER, a measured cosine")] | None = Field(
        None, description="the measured cosine it belongs beside, where that is not the headline: of another layer, say"
    )
    source: str
    note: str = ""
    axes: dict[str, AxisValue] = {}


class Priority(Strict):
    """When `hebbbench run --missing` takes the cells at these axis values: 1 first, those without a rank last."""

    rank: PositiveInt
    axes: dict[str, AxisValue] = {}


CONDITIONS = ("noise", "sparsity", "readout")
TRAINING_FREE = tuple(name for name in Training.model_fields if name not in CONDITIONS)
"""What a recipe could set of the training; the others are conditions of an experiment, never a choice."""
