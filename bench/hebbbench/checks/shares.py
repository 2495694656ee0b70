"""What a rule must be shown when a batch is divided over processes, found by dividing one over two threads.

Most equations are sums of terms that reduce (`hebb`, `decay`, `correlation`), or need no more than the gradient, and
each process may keep to its own rows. An equation with a statistic of its own over the batch, such as a win rate, must
see all rows. A procedure for the whole network works if it treats every sample by itself, and is refused otherwise.
Which is which is seen from the weights and states after a few steps, beside those of one process with the whole batch.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from hebbbench import registry
from hebbbench.cell import Cell
from hebbbench.checks.network import CLASSES, INPUTS, SAMPLES, WIDTHS, build_learner, toy_cell, undisturbed
from hebbbench.checks.rig import differs
from hebbbench.checks.subject import Failed, Skipped, Subject
from hebbbench.errors import ProtocolError, RuleError
from hebbbench.training.learner import Learner
from hebbbench.validation import canonical_json
from hebbbench.world import ALONE, Divided

STEPS = 3
RATE = 0.01
Sight = Literal["own rows", "all rows"]
"""What a rule is shown: those of its process's samples, or those of the whole batch."""


class Meeting:
    """Where threads that stand for processes exchange tensors: each lays one down, and sees all of them.

    One runs at a time, with a state of torch's global generator of its own, as if it were a process.
    """

    def __init__(self, size: int) -> None:
        self.table: list[Tensor] = [torch.empty(0)] * size
        self.barrier = threading.Barrier(size, timeout=60)
        self.turn = threading.Lock()

    def exchanged(self, rank: int, value: Tensor) -> list[Tensor]:
        """What every thread has laid down."""
        self.table[rank] = value.detach().clone()
        self._wait()
        found = list(self.table)
        self._wait()
        return found

    def _wait(self) -> None:
        state = torch.get_rng_state()
        self.turn.release()
        try:
            self.barrier.wait()
        finally:
            self.turn.acquire()
            torch.set_rng_state(state)


class Thread(Divided):
    """One of several threads that stand for processes."""

    def __init__(self, rank: int, meeting: Meeting) -> None:
        super().__init__(rank, len(meeting.table))
        self.meeting = meeting

    def _total(self, value: Tensor) -> Tensor:
        return torch.stack(self.meeting.exchanged(self.rank, value)).sum(0)

    def _rows(self, value: Tensor, counts: list[int]) -> Tensor:
        return torch.cat(self.meeting.exchanged(self.rank, value))


def side_by_side(learners: Sequence[Learner], train: Callable[[Learner], None]) -> None:
    """Let learners, each in a `Thread` of one meeting, train at the same time.

    Raises:
        Exception: whatever the first of them raised that did; the others are released.
    """
    causes: list[Exception] = []

    def guarded(learner: Learner) -> None:
        assert isinstance(learner.world, Thread)
        meeting = learner.world.meeting
        with meeting.turn:
            try:
                train(learner)
            except Exception as error:
                causes.append(error)
                meeting.barrier.abort()

    with ThreadPoolExecutor(len(learners)) as pool:
        list(pool.map(guarded, learners))
    if causes:
        raise causes[0]


def sees_all_rows(cell: Cell) -> bool:
    """Whether a cell's rule, with the recipe's hyper-parameters, must be shown the rows of the whole batch.

    Raises:
        RuleError: a batch of this rule cannot be divided.
        ProtocolError: nor can the work of this protocol.
    """
    if cell.work.alignment is not None:
        raise ProtocolError(
            f"protocol {cell.protocol.name} measures alignment, step by step and over all data at once, and runs on "
            "one process. Leave torchrun out; many cells at a time: --executor local --jobs N."
        )
    return sight_of(cell.rule, canonical_json(cell.recipe.hyperparameters)) == "all rows"


@cache
def sight_of(rule: str, hyperparameters: str = "{}") -> Sight:
    """What a rule must be shown; hyper-parameters as JSON.

    Raises:
        RuleError: a batch of this rule cannot be divided.
    """
    values = json.loads(hyperparameters)
    gap = ""
    with undisturbed():
        for found in get_args(Sight):
            gap = difference(rule, values, found == "all rows")
            if not gap:
                return found  # type: ignore[no-any-return]
            if registry.rule(rule).shape == "step":
                break
    raise RuleError(
        f"rule {registry.rule(rule).__name__}: from a batch divided over two processes it learns something else than "
        f"from the whole ({gap}), so a cell of it runs on one process. Leave torchrun out; many cells at a time: "
        "--executor local --jobs N."
    )


def difference(rule: str, hyperparameters: dict[str, Any], whole: bool) -> str:
    """How the weights or states after a few steps differ between one process and two; empty if they do not.

    Args:
        whole: whether the rule is shown the rows of the whole batch.
    """
    counts = [len(value) for value in hyperparameters.values() if isinstance(value, list)]
    widths = (WIDTHS + WIDTHS[-1:] * max(counts, default=0))[: max(counts, default=len(WIDTHS))]
    cell = toy_cell(rule, hyperparameters, widths, RATE, 0)
    meeting = Meeting(2)
    one, *two = (
        build_learner(cell, INPUTS, CLASSES, torch.float64, world, whole)
        for world in (ALONE, Thread(0, meeting), Thread(1, meeting))
    )
    _train(one)
    side_by_side(two, _train)
    for other in two:
        wanted, found = _remembered(one), _remembered(other)
        for name, value in wanted.items():
            if differs(value.double(), found[name].double()):
                gap = (value.double() - found[name].double()).abs().max().item()
                return f"{name} differs by up to {gap:.2g} after {STEPS} steps"
    return ""


def _train(learner: Learner) -> None:
    """Steps of the whole batch, or of the share that is this world's; the shares are of unequal size."""
    for number in range(STEPS):
        source = torch.Generator().manual_seed(number)
        x = torch.randn(SAMPLES, INPUTS, generator=source, dtype=torch.float64)
        part = learner.world.begin(SAMPLES)
        learner.step(x[part], (torch.arange(SAMPLES) % CLASSES)[part], number, 0.0)
        learner.world.end()


def _remembered(learner: Learner) -> dict[str, Tensor]:
    """Everything that a step changes, by name."""
    found = {name: parameter.detach() for name, parameter in learner.model.named_parameters()}
    for layer in learner.plasticity.layers:
        found |= {f"{layer.name}: state '{key}'": value for key, value in layer.state.items()}
    if learner.procedure is not None:
        found |= {f"state '{key}'": value for key, value in learner.procedure.state.items()}
    return found


def shares(subject: Subject) -> str:
    """Two processes with half a batch each learn what one learns from the whole."""
    try:
        found = sight_of(subject.rule)
    except RuleError as error:
        if subject.kind.shape == "step":
            raise Skipped(str(error)) from error
        raise Failed(str(error)) from error
    return f"two processes are one; each is shown {found}"
