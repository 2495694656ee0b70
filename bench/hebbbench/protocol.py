"""A protocol fixes the work; what a rule may choose within it is its recipe (see `hebbbench.recipe`).

`Protocol` is immutable data read from YAML. Its hash covers everything that decides a number, and leaves out
the prose and the published figures, which may be amended without changing the work.
"""

from __future__ import annotations

import copy
import json
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from hebbbench.errors import ProtocolError, suggestion
from hebbbench.sections import (
    TRAINING_FREE,
    Alignment,
    Architecture,
    Axis,
    AxisValue,
    Budget,
    Data,
    Fraction,
    Name,
    Options,
    Priority,
    Probe,
    Published,
    PublishedProbe,
    Training,
)
from hebbbench.validation import WHOLE, Growing, canonical_json, complaint, digest, form, read_model, validate

HEADLINES = ("probe.test.accuracy", "end_to_end.test.accuracy")
ALIGNMENT = "alignment."
"""What the name of a headline that is no accuracy begins with; a plastic layer's name follows."""
SGD = ".sgd"
"""What follows the layer's name where its update is compared with gradient descent's, not with Hebb's."""


class Protocol(Growing):
    """A table of the field as data: fixed work, what is free, how it is scored."""

    later: ClassVar = frozenset(
        {"published_probe", "published_epoch", "diagnostics", "hyperparameters", "loss", "rules", "alignment"}
    )

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
    precision: Literal["float32", "mixed", "bfloat16"] = Field(
        "float32",
        description="of products while training: with mixed, rules' outer products are in bfloat16, with bfloat16 all; "
        "weights, competition, sums and scoring are float32 in each",
    )
    seeds: list[NonNegativeInt] = Field(min_length=1)
    probe: Probe | None = Field(None, description="none = the network is not scored by its features")
    published_probe: PublishedProbe | None = Field(None, description="a second read-out, for comparison with a paper")
    published_epoch: Literal["best"] | None = Field(
        None, description="best: the network's own output is also scored at its best test epoch, as papers print it"
    )
    diagnostics: bool = Field(False, description="every run records how it learns: Gini, dead units, ranks, alignment")
    alignment: Alignment | None = Field(None, description="measured if given")
    headline: Annotated[
        str,
        form(
            r"^(probe\.test\.accuracy|end_to_end\.test\.accuracy|alignment\.[a-z0-9_.]+)$",
            "probe.test.accuracy, end_to_end.test.accuracy or alignment.LAYER",
        ),
    ] = "probe.test.accuracy"
    chance: Fraction | None = Field(None, description="accuracy of guessing")
    controls: list[str] = ["bp", "random"]
    axes: dict[Name, Axis] = {}
    published: list[Published] = []
    priority: Priority | None = Field(None, description="what `hebbbench run --missing` takes first")

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
        if self.published_epoch is not None and self.probe is None:
            raise ValueError("published_epoch is read when the probe opens the test split: give the section 'probe'")
        if self.data.unlabelled is not None and self.alignment is not None:
            raise ValueError("alignment is measured on labelled samples; take out either it or data.unlabelled")
        if self.scores_accuracy and self.chance is None:
            raise ValueError("chance, the accuracy of guessing, is missing")
        self._check_axes()
        chosen = [("published", row.axes) for row in self.published]
        chosen += [("priority", self.priority.axes)] if self.priority is not None else []
        for where, axes in chosen:
            for name, value in axes.items():
                if name not in self.axes:
                    raise ValueError(
                        f"{where}: the axis '{name}' is none of this protocol. {suggestion(name, self.axes)}"
                    )
                if not _listed(value, self.axes[name].values):
                    raise ValueError(f"{where}: {name} = {value!r} is not among its values {self.axes[name].values}")
        return self

    def _check_axes(self) -> None:
        """Every path exists, no two axes share one, and every value could stand there."""
        plain = self.model_dump(mode="json", exclude={"axes", "published", "priority"}, context=WHOLE)
        paths: dict[str, str] = {}
        for name, axis in self.axes.items():
            read_path(plain, axis.path, f"axes.{name}.path")
            if axis.path in paths:
                raise ValueError(f"axes '{paths[axis.path]}' and '{name}' both set {axis.path}")
            paths[axis.path] = name
            if len({repr(value) for value in axis.values}) < len(axis.values):
                raise ValueError(f"axes.{name}.values = {axis.values} repeats a value")
            for value in axis.values:
                varied = copy.deepcopy(plain)
                write_path(varied, axis.path, value)
                try:
                    Protocol.model_validate(varied)
                except ValidationError as error:
                    what = complaint(dict(error.errors()[0]))
                    raise ValueError(f"axes.{name}: {axis.path} = {value!r}{what}") from error

    def identity(self) -> dict[str, Any]:
        """Everything that decides a number, as plain data."""
        return self.model_dump(mode="json", exclude={"title", "description", "published", "controls", "priority"})

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
        return _valid(json.dumps(plain), f"protocol '{self.name}' at {canonical_json(axes)}")


@lru_cache(maxsize=1024)
def _valid(text: str, where: str) -> Protocol:
    """A protocol from JSON; one object for one text, because a board asks for the same point many times."""
    return validate(Protocol, json.loads(text), where)


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
    protocol = read_model(Protocol, path)
    if protocol.name != path.stem:
        raise ProtocolError(
            f"{path}: name = '{protocol.name}', but the file is '{path.name}'. "
            f"One name everywhere: rename the file to {protocol.name}.yaml or the protocol to {path.stem}."
        )
    return protocol
