"""What a cell may take: as long as its rule took there, else its counted work at the rates of earlier results.

The work of training is a forward pass of a sample, counted on shapes, times the samples, times the forward passes that
a step of the rule takes; that of a read-out is a forward pass of every sample whose features it takes, and its epochs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from math import log
from statistics import median

from hebbbench.cell import Cell
from hebbbench.data import dataset_spec
from hebbbench.errors import HebbBenchError
from hebbbench.outlines import Outlines
from hebbbench.protocol import Protocol
from hebbbench.record.schema import Result
from hebbbench.sections import AxisValue
from hebbbench.validation import canonical_json

NEAREST = 9
"""Earlier results, those most alike in work, whose median rate is taken."""

PASSES = 3.0
"""Forward passes that a step takes, if no result has counted them for the rule: as many as in backpropagation."""

Place = tuple[str, str]
"""A protocol's name, and axis values as JSON."""

Rate = tuple[float, float]
"""Operations of a step, or of a read-out, and the seconds that each of them took."""


class Prices:
    """What cells may take.

    Args:
        results: earlier ones. If some were measured on the kind of device that is here, only those count.
        protocols: by name.
        outlines: of networks.
    """

    def __init__(self, results: Iterable[Result], protocols: Mapping[str, Protocol], outlines: Outlines) -> None:
        self._outlines = outlines
        self._wall: defaultdict[tuple[Place, str, int], list[float]] = defaultdict(list)
        self._probe: defaultdict[Place, list[float]] = defaultdict(list)
        self._there: defaultdict[Place, list[Rate]] = defaultdict(list)
        self._elsewhere: defaultdict[str, list[Rate]] = defaultdict(list)
        self._points: dict[Place, Protocol] = {}
        passes: defaultdict[str, list[float]] = defaultdict(list)
        for result in _from_here([result for result in results if result.status == "ok"]):
            place, cost, work = _place(result.protocol.name, result.axes), result.cost, result.work
            try:
                point = self._points.get(place) or protocols[place[0]].at(result.axes)
            except (KeyError, HebbBenchError):
                continue
            self._points[place] = point
            self._wall[place, result.rule.name, result.recipe.training.epochs].append(cost.wall_seconds)
            if cost.probe_seconds:
                self._probe[place].append(cost.probe_seconds)
            if work is not None and cost.train_seconds:
                rate = float(work.step_flops), cost.train_seconds / cost.steps / work.step_flops
                self._there[place].append(rate)
                self._elsewhere[point.precision].append(rate)
                passes[result.rule.name].append(work.step_flops / work.forward_flops)
        self._passes = {rule: median(counted) for rule, counted in passes.items()}

    def seconds(self, cell: Cell) -> float | None:
        """What a cell may take; None if no result tells."""
        place = _place(cell.protocol.name, cell.axes)
        wall = self._wall.get((place, cell.rule_name, cell.recipe.training.epochs))
        if wall is not None:
            return median(wall)
        training, readout = self._training(cell, place), self._readout(cell, place)
        return None if training is None or readout is None else training + readout

    def _training(self, cell: Cell, place: Place) -> float | None:
        training, work = cell.recipe.training, cell.work
        if not training.epochs:
            return 0.0
        network = self._outlines.of(work.architecture.name, cell.recipe.architecture, work.data.dataset)
        rates = self._there.get(place) or self._elsewhere.get(work.precision)
        if network is None or rates is None:
            return None
        operations = network.operations * self._passes.get(cell.rule_name, PASSES)
        return operations * _samples(cell) * training.epochs * _median_rate(rates, operations * training.batch_size)

    def _readout(self, cell: Cell, place: Place) -> float | None:
        if cell.work.probe is None:
            return 0.0
        if place in self._probe:
            return median(self._probe[place])
        operations = _readout_work(cell.work, self._outlines)
        if operations is None or not self._readout_rates:
            return None
        return operations * _median_rate(self._readout_rates, operations)

    @cached_property
    def _readout_rates(self) -> list[Rate]:
        works = {place: _readout_work(self._points[place], self._outlines) for place in self._probe}
        return [(work, median(self._probe[place]) / work) for place, work in works.items() if work is not None]


def network_work(point: Protocol, outlines: Outlines) -> float | None:
    """Operations of the forward passes that training takes as a protocol has it at its axis values.

    None if its network cannot be built here.
    """
    network = outlines.of(point.architecture.name, point.architecture.options, point.data.dataset)
    return None if network is None else float(network.operations) * point.training.epochs * _labelled(point)


def _samples(cell: Cell) -> int:
    return _labelled(cell.work) if cell.unlabelled is None else dataset_spec(cell.unlabelled).counts["train"]


def _labelled(point: Protocol) -> int:
    return dataset_spec(point.data.dataset).counts["train"] - point.data.validation


def _readout_work(point: Protocol, outlines: Outlines) -> float | None:
    network = outlines.of(point.architecture.name, point.architecture.options, point.data.dataset)
    if network is None or point.probe is None:
        return None
    spec = dataset_spec(point.data.dataset)
    features = network.operations * (sum(spec.counts.values()) + point.probe.statistics_samples)
    epoch = PASSES * 2 * network.features * spec.classes * _labelled(point)
    return float(features) + epoch * point.probe.epochs


def _median_rate(rates: Sequence[Rate], operations: float) -> float:
    """Seconds an operation, of the results that are most like one of so many operations."""
    alike = sorted(rates, key=lambda rate: abs(log(rate[0] / operations)))
    return median(seconds for _, seconds in alike[:NEAREST])


def _place(protocol: str, axes: dict[str, AxisValue]) -> Place:
    return protocol, canonical_json(axes)


def _from_here(results: list[Result]) -> list[Result]:
    kinds = [(result.environment.device or "").partition(":")[0] for result in results]
    if len(set(kinds)) > 1:
        import torch

        here = "cuda" if torch.cuda.is_available() else "cpu"
        if here in kinds:
            return [result for result, kind in zip(results, kinds, strict=True) if kind == here]
    return results
