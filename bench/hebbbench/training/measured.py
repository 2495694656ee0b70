"""What a cell has measured, and the result made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime

import torch

from hebbbench import registry
from hebbbench.cell import Cell
from hebbbench.data import Dataset, dataset_spec
from hebbbench.plasticity.routes import ROUTES
from hebbbench.plasticity.signals import weight_rows
from hebbbench.record import schema
from hebbbench.record.environment import Code, code, describe
from hebbbench.training.device import peak_memory
from hebbbench.training.learner import Learner
from hebbbench.training.loop import State
from hebbbench.training.observer import Observer
from hebbbench.training.work import Work, ceiling


@dataclass
class Measured:
    """What a cell has to show so far; a cell that fails half way still reports this much."""

    model: schema.Model | None = None
    metrics: dict[str, schema.Metric] = field(default_factory=dict)
    probe_curve: list[tuple[float, float]] = field(default_factory=list)
    weights: str | None = None
    determinism: bool | None = None
    work: Work | None = None
    observer: Observer | None = None
    state: State = field(default_factory=State)
    phase: str = "setup"
    processes: int = 1
    code: Code = field(default_factory=code)

    def accuracy(self, name: str, value: float, epoch: int) -> None:
        self.metrics[f"{name}.accuracy"] = schema.Metric(value=value, split=name.rpartition(".")[2], epoch=epoch)  # type: ignore[arg-type]

    def top5(self, name: str, value: float, epoch: int) -> None:
        self.metrics[f"{name}.top5_accuracy"] = schema.Metric(value=value, split="test", epoch=epoch)

    def result(
        self,
        cell: Cell,
        dataset: Dataset,
        samples: tuple[int, int],
        device: torch.device,
        identity: str,
        status: schema.Status,
        reason: str | None,
        stop: schema.Stop | None,
        started: datetime,
    ) -> schema.Result:
        """Everything as the result of a cell.

        Args:
            samples: numbers of training and of validation samples.
            identity: of the cell; started: when it was.
        """
        state = self.state
        points = dict(state.curves)
        trained = state.seconds
        if self.observer is not None:
            points |= self.observer.curves
            trained = max(0.0, trained - self.observer.training_seconds)
        if self.probe_curve:
            points["probe.validation.accuracy"] = self.probe_curve
        # Where training diverged there is nothing to draw: a curve ends before it, and the status says why.
        curves = {name: [[float(x), y] for x, y in pairs if math.isfinite(y)] for name, pairs in points.items()}
        return schema.Result(
            cell=identity,
            protocol=schema.ProtocolRef(
                name=cell.protocol.name, version=cell.protocol.version, hash=cell.protocol.hash
            ),
            axes=cell.axes,
            rule=schema.RuleRef(
                name=cell.rule_name, source_hash=cell.source_hash, signals=list(registry.rule(cell.rule).signals)
            ),
            architecture=schema.ArchitectureRef(name=cell.work.architecture.name, source_hash=cell.network_hash),
            recipe=cell.recipe,
            seed=cell.seed,
            data=schema.DataRef(
                dataset=dataset.name,
                identity=dataset.identity,
                pinned=dataset.pinned,
                samples=schema.Samples(
                    train=samples[0],
                    validation=samples[1],
                    test=dataset_spec(dataset.name).counts["test"],
                ),
            ),
            model=self.model,
            status=status,
            reason=reason,
            stop=stop,
            metrics=self.metrics,
            curves=curves,
            weights=self.weights,
            cost=schema.Cost(
                wall_seconds=state.wall,
                train_seconds=trained,
                probe_seconds=state.probe_seconds,
                step_seconds=trained / state.step if state.step else None,
                images_per_second=state.samples / trained if trained else None,
                peak_memory_bytes=peak_memory(device),
                steps=state.step,
                samples_seen=state.samples,
                resumed=state.resumed,
            ),
            work=self._counted(cell, device, trained),
            environment=describe(
                str(device), self.determinism, self.processes, dict(ROUTES.unusual), state.replayed, self.code
            ),
            started=started.isoformat(timespec="seconds"),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _counted(self, cell: Cell, device: torch.device, seconds: float) -> schema.Work | None:
        """What a step computes, and at which rate the steps of these seconds did."""
        counted, state = self.work, self.state
        if counted is None or not counted.step:
            return None
        precision = torch.bfloat16 if cell.work.precision == "bfloat16" else torch.float32
        return schema.Work(
            forward_flops=counted.forward,
            step_flops=counted.step,
            achieved_flops_per_second=counted.step * state.step / seconds if seconds else None,
            ceiling_flops_per_second=ceiling(device, precision) * self.processes,
            step_bytes=counted.bytes,
            layers=[
                schema.LayerWork(
                    name=layer.name,
                    forward_flops=layer.forward.operations,
                    backward_flops=layer.backward.operations,
                    rule_flops=layer.rule.operations,
                    forward_bytes=layer.forward.bytes,
                    backward_bytes=layer.backward.bytes,
                    rule_bytes=layer.rule.bytes,
                )
                for layer in counted.layers
            ],
        )


def describe_model(learner: Learner) -> schema.Model:
    """Parameter count and plastic layers of what is trained."""
    layers = [(layer.name, weight_rows(layer.module.weight.detach()).shape) for layer in learner.plasticity.layers]
    return schema.Model(
        parameters=sum(parameter.numel() for parameter in learner.model.parameters()),
        plastic=[schema.PlasticLayer(name=name, units=shape[0], fan_in=shape[1]) for name, shape in layers],
    )
