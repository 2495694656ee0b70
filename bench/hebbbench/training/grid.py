"""Running many cells: each by itself, or, if their networks are small, many together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from hebbbench.cell import Cell
from hebbbench.data import dataset_spec
from hebbbench.data.places import resolve_cache
from hebbbench.errors import (
    CellTaken,
    DataError,
    HebbBenchError,
    LimitTooShort,
    ResultError,
    RunInterrupted,
    TimeLimitReached,
)
from hebbbench.progress import Reporter, Silent, duration
from hebbbench.record import schema, store
from hebbbench.record.card import Card
from hebbbench.training.beside import Locked, side_by_side
from hebbbench.training.checkpoint import Checkpoint
from hebbbench.training.course import Course
from hebbbench.training.device import prepare_torch
from hebbbench.training.interrupt import StopRequest, stop_requests
from hebbbench.training.loop import batches_per_epoch
from hebbbench.training.run import Settings, finished, finished_before, load_data, run_cell
from hebbbench.training.together import Chunk, can_be_together, chunk_size, chunks, train_together
from hebbbench.validation import canonical_json


def run_cells(
    planned: Sequence[Cell],
    results: Path,
    settings: Settings,
    reporter: Reporter,
    *,
    force: bool = False,
    card: Callable[[Cell], Card | None] = lambda cell: None,
    skip: bool = False,
) -> Iterator[schema.Result]:
    """Run cells and yield each one's result as it is there; small networks train many at a time.

    Args:
        force: run finished cells again.
        card: gives a cell's plausibility card, if its rule has one; asked after the cell has been measured.
        skip: leave out a cell that cannot be run here, such as one whose data cannot be had, with a line saying why.

    A cell that another process is running is left out, with a line saying so. Cells that were finished before come
    first, then those that train one by one, then those that train together, whose results are saved chunk by chunk.

    Raises:
        TimeLimitReached: the time left is too short for the cell at hand or for the next one.
        LimitTooShort: so it would be each time.
        RunInterrupted, HebbBenchError: as `run_cell`.
    """
    settings.world.told(partial(store.check_writable, results))
    device = prepare_torch(settings.device)
    together: list[Cell] = []
    shapes: dict[str, bool] = {}
    absent: set[tuple[str, ...]] = set()
    for number, cell in enumerate(planned, start=1):
        if cell.datasets in absent:
            continue
        try:
            dataset = load_data(cell, settings, reporter)
        except DataError as error:
            if not skip:
                raise
            reporter.say(f"  every cell on {' and '.join(cell.datasets)} is skipped: {error}")
            absent.add(cell.datasets)
            continue
        try:
            kind = canonical_json([cell.protocol.hash, cell.axes, cell.rule, cell.recipe.identity()])
            if kind not in shapes:
                plain = not (settings.diagnostics or settings.save_weights or cell.work.diagnostics)
                shapes[kind] = plain and settings.world.size == 1 and can_be_together(cell, device)
            if shapes[kind]:
                done = None if force else finished(cell, cell.identity(dataset.identity), results)
                if done is None:
                    together.append(cell)
                else:
                    yield done
                continue
            if force or finished_before(cell, cell.identity(dataset.identity), results, settings) is None:
                _need_time(settings, f"cell {number} of {len(planned)}")
                if settings.limit is not None:
                    card(cell)  # measured and kept now, because behind the cell there may be no time for it
            reporter.say(f"[{number}/{len(planned)}] {cell}")
            yield run_cell(cell, results, settings, reporter, force=force, card=partial(card, cell))
        except (RunInterrupted, LimitTooShort, ResultError):
            raise
        except CellTaken as error:
            reporter.say(f"  skipped: {error}")
        except HebbBenchError as error:
            if not skip:
                raise
            reporter.say(f"  skipped: {error}")
    if together:
        yield from _run_together(together, results, settings, reporter, device, card)


def _run_together(
    cells: Sequence[Cell],
    results: Path,
    settings: Settings,
    reporter: Reporter,
    device: torch.device,
    card: Callable[[Cell], Card | None],
) -> Iterator[schema.Result]:
    """Train cells in chunks, as many at a time as torch has threads, and save each chunk's results when it is done."""
    cache = resolve_cache(settings.cache)
    for cell in {cell.rule: cell for cell in cells}.values():
        card(cell)  # measured and kept now, while no other thread is at work
    size = chunk_size(device)
    planned = list(chunks(cells, size))
    lanes = min(len(planned), torch.get_num_threads()) if device.type == "cpu" else 1
    shared = Counted(reporter)

    def train(chunk: Chunk, cards: list[Card | None], request: StopRequest) -> list[schema.Result]:
        trained = train_together(chunk, request, shared)
        found = [result.model_copy(update={"card": card}) for result, card in zip(trained, cards, strict=True)]
        for result in found:
            store.save(result, results)
        return found

    def pieces() -> Iterator[Callable[[StopRequest], list[schema.Result]]]:
        for part in planned:
            _need_time(settings, f"the next {len(part)} networks")
            courses, identities = [], []
            for cell in part:
                dataset = load_data(cell, settings, Silent())
                identities.append(cell.identity(dataset.identity))
                kept = Checkpoint(cache / "checkpoints", identities[-1])
                courses.append(Course(cell, dataset, kept, device, cache / "scratch", shared, read_test=True))
            yield partial(train, Chunk(courses, identities), [card(cell) for cell in part])

    reporter.phase(f"training {len(cells)} networks, up to {lanes * size} at once", sum(map(_steps, cells)))
    limit, began, ended = settings.limit, time.monotonic(), 0
    first = limit is not None and not limit.cells
    try:
        with stop_requests(limit) as stop:
            for trained in side_by_side(pieces(), lanes, stop, device):
                ended += 1
                yield from trained
    except TimeLimitReached as error:
        if limit is None or not first or ended or limit.once:
            raise
        whole, spent = sum(_steps(cell) for part in planned[:lanes] for cell in part), time.monotonic() - began
        rest = spent * (whole / shared.steps - 1) if shared.steps else None
        why = f"of {len(cells)} networks, up to {lanes * size} at once, none came to its end, and none is kept half-way"
        raise limit.too_short(why, None if rest is None else limit.passed() + rest) from error
    finally:
        reporter.end()


class Counted(Locked):
    """A reporter for several threads that counts their steps, for an estimate."""

    steps = 0

    def advance(self, steps: int = 1, note: str = "") -> None:
        super().advance(steps, note)
        self.steps += steps


def _steps(cell: Cell) -> int:
    """How many steps a cell trains for."""
    training, spec = cell.recipe.training, dataset_spec(cell.work.data.dataset)
    return training.epochs * batches_per_epoch(spec.counts["train"], training.batch_size)


def _need_time(settings: Settings, what: str) -> None:
    """Stop before beginning what could not come to its first safe stop in the time left."""
    limit = settings.limit
    if limit is None:
        return
    if settings.world.any(not limit.spare(2 * limit.setup)):
        if settings.world.any(limit.hopeless()):
            passed = limit.passed()
            why = f"{duration(passed)} passed before anything could be begun, and as much would the next time"
            raise limit.too_short(why, 1.5 * passed)
        raise TimeLimitReached(
            f"stopped before {what}: the time limit of {duration(limit.seconds)} is near. "
            "Run the same command again to go on from there."
        )
    limit.begin()
