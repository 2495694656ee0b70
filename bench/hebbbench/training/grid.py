"""Running many cells: each by itself, or, if their networks are small, many together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from hebbbench.cell import Cell
from hebbbench.data import dataset_spec
from hebbbench.data.places import resolve_cache
from hebbbench.errors import CellTaken, DataError, HebbBenchError, ResultError, RunInterrupted, TimeLimitReached
from hebbbench.progress import Reporter, Silent, duration
from hebbbench.record import schema, store
from hebbbench.record.card import Card
from hebbbench.training.beside import Locked, side_by_side
from hebbbench.training.checkpoint import Checkpoint
from hebbbench.training.course import Course
from hebbbench.training.device import prepare_torch
from hebbbench.training.interrupt import StopRequest, stop_requests
from hebbbench.training.loop import batches_per_epoch
from hebbbench.training.run import Settings, finished, load_data, run_cell
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
            _need_time(settings, f"cell {number} of {len(planned)}")
            reporter.say(f"[{number}/{len(planned)}] {cell}")
            if settings.limit is not None:
                card(cell)  # measured and kept now, because behind the cell there may be no time for it
            yield run_cell(cell, results, settings, reporter, force=force, card=partial(card, cell))
        except (RunInterrupted, ResultError):
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
    steps = 0
    for cell in cells:
        training, spec = cell.recipe.training, dataset_spec(cell.work.data.dataset)
        steps += training.epochs * batches_per_epoch(spec.counts["train"], training.batch_size)
    for cell in {cell.rule: cell for cell in cells}.values():
        card(cell)  # measured and kept now, while no other thread is at work
    size = chunk_size(device)
    planned = list(chunks(cells, size))
    lanes = min(len(planned), torch.get_num_threads()) if device.type == "cpu" else 1
    shared = Locked(reporter)

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

    reporter.phase(f"training {len(cells)} networks, up to {lanes * size} at once", steps)
    try:
        with stop_requests(settings.limit) as stop:
            for trained in side_by_side(pieces(), lanes, stop):
                yield from trained
    finally:
        reporter.end()


def _need_time(settings: Settings, what: str) -> None:
    """Stop before beginning what could not come to its first safe stop in the time left."""
    limit = settings.limit
    if limit is None:
        return
    if settings.world.any(not limit.spare(2 * limit.setup)):
        raise TimeLimitReached(
            f"stopped before {what}: the time limit of {duration(limit.seconds)} is near. "
            "Run the same command again to go on from there."
        )
    limit.begin()
