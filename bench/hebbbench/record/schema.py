"""The canonical result of one cell. The JSON Schema is generated from these models, never written by hand."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from hebbbench.recipe import Resolved
from hebbbench.record.card import Card
from hebbbench.sections import AxisValue
from hebbbench.validation import Strict, digest

NUMERICS_VERSION = 1
"""Raised by hand whenever a change to the harness changes measured numbers; older results leave the board."""

DIAGNOSTICS = "diagnostics."
"""How the names of metrics and curves begin that a run has only if diagnostics are switched on."""

PUBLISHED_READOUT = "probe.published_protocol.test.max"
"""The metric of a protocol's `published_probe`: chosen with the test split in hand, so it ranks nothing."""

PUBLISHED_EPOCH = "end_to_end.published_protocol.test.max"
"""The metric of a protocol's `published_epoch`: the network's own best test epoch, which ranks nothing."""

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Point = Annotated[list[float], Field(min_length=2, max_length=2)]
Status = Literal["ok", "diverged", "failed", "timeout"]


class ProtocolRef(Strict):
    """Which work was done."""

    name: str
    version: PositiveInt
    hash: Hash


class RuleRef(Strict):
    """Which equation did it. `source_hash` covers the file's code, not its comments or docstrings."""

    name: str
    source_hash: Hash
    signals: list[str] = Field(description="what `delta` asked to see")


class ArchitectureRef(Strict):
    """Which network was trained: the protocol's name for it, and the fingerprint of its file's code, as of a rule's."""

    name: str
    source_hash: Hash


class Samples(Strict):
    """How many samples each split held."""

    train: NonNegativeInt
    validation: NonNegativeInt
    test: NonNegativeInt


class DataRef(Strict):
    """Which data: order-independent SHA-256 per split."""

    dataset: str
    identity: dict[str, Hash]
    pinned: bool = Field(description="whether the identity was checked against the one in the repository")
    samples: Samples


class PlasticLayer(Strict):
    """A layer the rule governed; `fan_in` and `units` are the weight's columns and rows."""

    name: str
    fan_in: PositiveInt
    units: PositiveInt


class Model(Strict):
    """What was trained."""

    parameters: PositiveInt
    plastic: list[PlasticLayer]


class Metric(Strict):
    """One number, the split it was measured on, and after how many epochs. A failed one is null with a reason."""

    value: float | None
    split: Literal["train", "validation", "test"]
    epoch: NonNegativeInt
    reason: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Metric:
        if (self.value is None) != (self.reason is not None):
            raise ValueError("a metric has either a value or the reason why there is none")
        return self


class Cost(Strict):
    """What it took: seconds, bytes, and work done. A resumed cell adds up its parts."""

    wall_seconds: NonNegativeFloat
    train_seconds: NonNegativeFloat
    probe_seconds: NonNegativeFloat
    step_seconds: NonNegativeFloat | None = Field(description="mean of a step with its data; null without steps")
    images_per_second: NonNegativeFloat | None
    peak_memory_bytes: NonNegativeInt | None
    steps: NonNegativeInt
    samples_seen: NonNegativeInt
    resumed: NonNegativeInt = Field(description="how often the cell went on from a checkpoint")


class LayerWork(Strict):
    """One step's work for one layer: for its output, for gradients through it, and for its rule's update."""

    name: str
    forward_flops: NonNegativeInt
    backward_flops: NonNegativeInt
    rule_flops: NonNegativeInt
    forward_bytes: NonNegativeInt
    backward_bytes: NonNegativeInt
    rule_bytes: NonNegativeInt


class Work(Strict):
    """Arithmetic of one step at the recipe's batch size, as counted: operations in products, two a multiply–add.

    Bytes are what every operator reads and writes: the traffic to memory of a machine without a cache.
    """

    forward_flops: PositiveInt = Field(description="of one forward pass through body and read-out")
    step_flops: PositiveInt = Field(description="of one whole step; over forward_flops, its cost in forward passes")
    achieved_flops_per_second: NonNegativeFloat | None = Field(description="mean over training, with its data")
    ceiling_flops_per_second: NonNegativeFloat | None = Field(
        description="the best rate of a square matrix product on the same device, threads and precision"
    )
    step_bytes: PositiveInt | None = Field(
        default=None, description="of one whole step; left out of results from before it was counted"
    )
    layers: list[LayerWork] = Field(
        default=[],
        description="the part of each layer that has products; what is between layers is in the sums alone",
    )

    @model_serializer(mode="wrap")
    def _without_the_uncounted(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Results from before bytes and layers were counted keep their canonical text."""
        plain: dict[str, Any] = whole(self)
        if self.step_bytes is None:
            plain.pop("step_bytes", None)
            plain.pop("layers", None)
        return plain


class Environment(Strict):
    """Where it ran. What could not be found out is null, with the reason under `unavailable`."""

    hebbbench: str | None
    commit: str | None
    dirty: bool | None
    python: str | None
    packages: dict[str, str | None]
    platform: str | None
    cpu: str | None
    threads: PositiveInt | None
    device: str | None
    device_name: str | None
    cuda: str | None
    precision: dict[str, Any]
    deterministic: bool | None = Field(description="whether torch's deterministic algorithms were asked for")
    determinism_probe: bool | None = Field(description="whether the first steps, run twice, gave the same bits")
    processes: PositiveInt = Field(
        default=1, description="over how many the cell was divided, each on a device like this one; left out if one"
    )
    routes: dict[str, str] = Field(
        default={},
        description="outer products that went another way than the library's weight gradient; left out if none",
    )
    replayed: NonNegativeInt = Field(
        default=0, description="steps that were replayed whole, as a CUDA graph; left out if none"
    )
    kernels: str | None = Field(
        default=None, description="what built the kernels that took the place of torch's on a GPU; left out if none did"
    )
    unavailable: dict[str, str]

    @model_serializer(mode="wrap")
    def _without_the_usual(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Results from before there were such things keep their canonical text."""
        plain: dict[str, Any] = whole(self)
        if self.processes == 1:
            plain.pop("processes", None)
        if not self.routes:
            plain.pop("routes", None)
        if not self.replayed:
            plain.pop("replayed", None)
        if self.kernels is None:
            plain.pop("kernels", None)
        return plain


class Stop(Strict):
    """Where a cell that did not finish stopped."""

    phase: str
    step: NonNegativeInt | None = None
    layer: str | None = None


def cell_digest(
    *,
    numerics: int,
    protocol: str,
    axes: dict[str, AxisValue],
    rule: str,
    source: str,
    recipe: Resolved,
    seed: int,
    data: dict[str, str],
    network: str | None,
) -> str:
    """Digest of everything that decides a cell's numbers.

    Args:
        protocol: its hash; rule: its name; source: fingerprint of its code; network: of the architecture's code, None
            if that is the first it has had: cells from before it was looked at keep the digest they had.
        data: the identity of the data, split → SHA-256; `unlabelled` is one if the cell learns from such images.
    """
    what = {
        "numerics": numerics,
        "protocol": protocol,
        "axes": axes,
        "rule": rule,
        "source": source,
        "recipe": recipe.identity(),
        "seed": seed,
        "data": data,
    }
    return digest(what if network is None else {**what, "network": network})


class Result(Strict):
    """One cell: protocol × axis values × rule × recipe × seed, and what it measured."""

    schema_version: Literal[1] = 1
    numerics_version: PositiveInt = NUMERICS_VERSION
    cell: Hash = Field(description="digest of everything that decides the numbers; the key of resuming")
    protocol: ProtocolRef
    axes: dict[str, AxisValue]
    rule: RuleRef
    architecture: ArchitectureRef | None = Field(
        default=None,
        description="left out of results from before it was recorded, which are of each network's first code",
    )
    recipe: Resolved
    seed: NonNegativeInt
    data: DataRef
    model: Model | None
    status: Status
    reason: str | None
    stop: Stop | None
    metrics: dict[str, Metric]
    curves: dict[str, list[Point]] = Field(description="name → [epoch, value] pairs")
    weights: Hash | None = Field(description="SHA-256 of the trained body's parameters and buffers")
    card: Card | None = Field(
        default=None, description="the rule's plausibility as measured when the cell ran; left out where it was not"
    )
    cost: Cost
    work: Work | None = Field(default=None, description="left out where nothing was trained or counted")
    environment: Environment
    started: str
    finished: str
    verification: Literal["self-reported", "ci", "replicated"] = "self-reported"

    @model_validator(mode="after")
    def _consistent(self) -> Result:
        if (self.status == "ok") != (self.reason is None):
            raise ValueError("status 'ok' has no reason, every other status has one")
        return self

    @model_serializer(mode="wrap")
    def _without_absent_parts(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Results from before there were cards, counted work and networks' code keep their canonical text."""
        plain: dict[str, Any] = whole(self)
        for part in ("architecture", "card", "work"):
            if getattr(self, part) is None:
                plain.pop(part, None)
        return plain

    def own_digest(self, network: str | None) -> str:
        """The digest of the cell that the result says it is of; `network` as in `cell_digest`."""
        return cell_digest(
            numerics=self.numerics_version,
            protocol=self.protocol.hash,
            axes=self.axes,
            rule=self.rule.name,
            source=self.rule.source_hash,
            recipe=self.recipe,
            seed=self.seed,
            data=self.data.identity,
            network=network,
        )

    def is_of_its_cell(self) -> bool:
        """Whether what the result says of its cell has the digest that it gives for it; else one of them was edited."""
        networks = {None, self.architecture.source_hash if self.architecture is not None else None}
        return self.cell in map(self.own_digest, networks)

    def measurement(self) -> dict[str, Any]:
        """What must be bit-identical when the same cell runs again on the same machine, with diagnostics or without."""
        plain = self.model_dump(mode="json", include={"cell", "status", "metrics", "curves", "weights"})
        for part in ("metrics", "curves"):
            plain[part] = {name: value for name, value in plain[part].items() if not name.startswith(DIAGNOSTICS)}
        return plain
