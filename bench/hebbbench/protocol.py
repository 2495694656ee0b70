"""A protocol fixes the work; what a rule may choose within it is its recipe (see `hebbbench.recipe`).

`Protocol` is immutable data read from YAML. Its hash covers everything that decides a number, and leaves out
the prose and the published figures, which may be amended without changing the work.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from hebbbench.errors import ProtocolError, suggestion
from hebbbench.validation import WHOLE, Growing, Strict, canonical_json, digest, read_yaml, validate

Fraction = Annotated[float, Field(ge=0, lt=1)]
PerLayer = PositiveFloat | Annotated[list[PositiveFloat], Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
AxisValue = int | float | str | bool


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


class Data(Strict):
    """Which samples, and how a pixel becomes a number: (pixel/255 − mean)/std, per channel.

    A teacher's inputs are numbers already: its mean and std are empty.
    """

    dataset: str
    validation: NonNegativeInt = Field(description="samples cut from the training split, by class, for tuning")
    mean: list[float]
    std: list[PositiveFloat]
    augment: Literal["none", "crop-flip", "resized-crop-flip"] = "none"


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
    source: str
    note: str = ""
    axes: dict[str, AxisValue] = {}


CONDITIONS = ("noise", "sparsity", "readout")
TRAINING_FREE = tuple(name for name in Training.model_fields if name not in CONDITIONS)
"""What a recipe could set of the training; the others are conditions of an experiment, never a choice."""

HEADLINES = ("probe.test.accuracy", "end_to_end.test.accuracy")
ALIGNMENT = "alignment."
"""What the name of a headline that is no accuracy begins with; a plastic layer's name follows."""
SGD = ".sgd"
"""What follows the layer's name where its update is compared with gradient descent's, not with Hebb's."""


class Protocol(Growing):
    """A table of the field as data: fixed work, what is free, how it is scored."""

    later: ClassVar = frozenset({"published_probe", "diagnostics", "hyperparameters", "loss", "rules", "alignment"})

    name: Name
    version: PositiveInt
    title: str
    description: str
    data: Data
    architecture: Architecture
    plastic: list[str] = Field(min_length=1, description="module names or patterns (conv*) the rule governs")
    plastic_unsupervised: list[str] | None = Field(
        None, description="the same for rules that use no gradient, where it differs"
    )
    training: Training
    hyperparameters: Options = Field(
        {},
        description="values in place of those of rules whose recipe for this protocol sets the same ones",
    )
    loss: Literal["cross_entropy", "mse"] = Field(
        "cross_entropy", description="of the network's answers; mse: the mean over samples and outputs"
    )
    rules: list[str] = Field([], description="what `--rule all` means here; empty = every rule")
    free: list[str] = []
    budget: Budget
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of products while training; with bfloat16, weights, competition, sums and scoring stay float32",
    )
    seeds: list[NonNegativeInt] = Field(min_length=1)
    probe: Probe | None = Field(None, description="none = the network is not scored by its features")
    published_probe: PublishedProbe | None = Field(None, description="a second read-out, for comparison with a paper")
    diagnostics: bool = Field(False, description="every run records how it learns: Gini, dead units, ranks, alignment")
    alignment: Alignment | None = Field(None, description="measured if given")
    headline: Annotated[
        str, Field(pattern=r"^(probe\.test\.accuracy|end_to_end\.test\.accuracy|alignment\.[a-z0-9_.]+)$")
    ] = "probe.test.accuracy"
    chance: Fraction | None = Field(None, description="accuracy of guessing")
    controls: list[str] = ["bp", "random"]
    axes: dict[Name, Axis] = {}
    published: list[Published] = []

    @model_validator(mode="after")
    def _consistent(self) -> Protocol:
        allowed = [*TRAINING_FREE, *(f"architecture.{option}" for option in self.architecture.options)]
        for entry in self.free:
            if entry not in allowed:
                raise ValueError(f"free: '{entry}' is nothing a recipe could choose. {suggestion(entry, allowed)}")
        if self.training.epochs > self.budget.epochs:
            raise ValueError(f"training.epochs = {self.training.epochs} is over budget.epochs = {self.budget.epochs}")
        if len(self.data.mean) != len(self.data.std):
            raise ValueError(
                f"data.mean has {len(self.data.mean)} channels and data.std {len(self.data.std)}; give one a channel"
            )
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds = {self.seeds} repeats a seed")
        needed = "probe" if self.headline == HEADLINES[0] else "alignment" if not self.scores_accuracy else None
        if needed is not None and getattr(self, needed) is None:
            raise ValueError(f"headline = '{self.headline}' needs the section '{needed}', which is missing")
        if self.scores_accuracy and self.chance is None:
            raise ValueError("chance, the accuracy of guessing, is missing")
        self._check_axes()
        for row in self.published:
            for name, value in row.axes.items():
                if name not in self.axes:
                    raise ValueError(
                        f"published: the axis '{name}' is none of this protocol. {suggestion(name, self.axes)}"
                    )
                if not _listed(value, self.axes[name].values):
                    raise ValueError(f"published: {name} = {value!r} is not among its values {self.axes[name].values}")
        return self

    def _check_axes(self) -> None:
        """Every path exists, no two axes share one, and every value could stand there."""
        plain = self.model_dump(mode="json", exclude={"axes", "published"}, context=WHOLE)
        paths: dict[str, str] = {}
        for name, axis in self.axes.items():
            read_path(plain, axis.path, f"axes.{name}.path")
            if axis.path in paths:
                raise ValueError(f"axes '{paths[axis.path]}' and '{name}' both set {axis.path}")
            paths[axis.path] = name
            for value in axis.values:
                varied = copy.deepcopy(plain)
                write_path(varied, axis.path, value)
                try:
                    Protocol.model_validate(varied)
                except ValidationError as error:
                    raise ValueError(
                        f"axes.{name}: {axis.path} cannot be {value!r}: {error.errors()[0]['msg']}"
                    ) from error

    def identity(self) -> dict[str, Any]:
        """Everything that decides a number, as plain data."""
        return self.model_dump(mode="json", exclude={"title", "description", "published", "controls"})

    @property
    def scores_accuracy(self) -> bool:
        """Whether the headline is a test accuracy; else it is an alignment, which ranks nothing."""
        return not self.headline.startswith(ALIGNMENT)

    def point(self, rule: str, axes: dict[str, AxisValue]) -> dict[str, AxisValue]:
        """Where a rule is measured for these values: an axis that names its rules stands at its first for others."""
        return {
            name: value if not (varied := self.axes[name]).rules or rule in varied.rules else varied.values[0]
            for name, value in axes.items()
        }

    def takes(self, rule: str, axes: dict[str, AxisValue]) -> bool:
        """Whether a rule is measured at these axis values themselves."""
        return self.point(rule, axes) == axes

    @property
    def hash(self) -> str:
        """SHA-256 of `identity()` in canonical JSON: two protocols with one hash fix the same work."""
        return digest(self.identity())

    def at(self, axes: dict[str, AxisValue]) -> Protocol:
        """This protocol with each axis set to its value.

        Raises:
            ProtocolError: an axis is missing, unknown, or given a value it does not list.
        """
        for name in axes:
            if name not in self.axes:
                raise ProtocolError(f"protocol '{self.name}' has no axis '{name}'. {suggestion(name, self.axes)}")
        plain = self.model_dump(mode="json")
        for name, axis in self.axes.items():
            if name not in axes:
                raise ProtocolError(f"protocol '{self.name}' needs a value of the axis '{name}': {axis.values}.")
            if not _listed(axes[name], axis.values):
                raise ProtocolError(
                    f"axis {name} = {axes[name]!r} is not in protocol '{self.name}'. Values: {axis.values}."
                )
            write_path(plain, axis.path, axes[name])
        return validate(Protocol, plain, f"protocol '{self.name}' at {canonical_json(axes)}")


def _listed(value: AxisValue, values: list[AxisValue]) -> bool:
    """Whether `value` is among `values`, types included: 1, 1.0 and True are three values."""
    return any(type(value) is type(listed) and value == listed for listed in values)


def read_path(tree: dict[str, Any], path: str, where: str) -> Any:
    """What stands at a dotted path; a ValueError names `where` and what there is, if nothing does."""
    node: Any = tree
    for part in path.split("."):
        if not isinstance(node, dict) or part not in node:
            known = node if isinstance(node, dict) else {}
            raise ValueError(f"{where} = '{path}': there is no '{part}'. {suggestion(part, known)}")
        node = node[part]
    return node


def write_path(tree: dict[str, Any], path: str, value: AxisValue) -> None:
    """Put `value` at a dotted path whose parents exist, in place."""
    *parents, last = path.split(".")
    for part in parents:
        tree = tree[part]
    tree[last] = value


def load_protocol(path: Path) -> Protocol:
    """The protocol in a YAML file; the file is named as the protocol is."""
    protocol = validate(Protocol, read_yaml(path), str(path))
    if protocol.name != path.stem:
        raise ProtocolError(
            f"{path}: name = '{protocol.name}', but the file is '{path.name}'. "
            f"One name everywhere: rename the file to {protocol.name}.yaml or the protocol to {path.stem}."
        )
    return protocol
