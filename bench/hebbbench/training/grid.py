"""Running many cells: each by itself, or, if their networks are small, many together."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from hebbbench.cards import warn_unkept
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
    one_line,
)
from hebbbench.files import check_writable
from hebbbench.progress import Reporter, Silent, duration
from hebbbench.record import schema
from hebbbench.record.card import Card
from hebbbench.training.again import Again
from hebbbench.training.beside import Locked, side_by_side
from hebbbench.training.checkpoint import Checkpoint
from hebbbench.training.course import Course
from hebbbench.training.device import prepare_torch
from hebbbench.training.interrupt import StopRequest, stop_requests
from hebbbench.training.loop import batches_per_epoch
from hebbbench.training.run import Settings, finished_before, load_data, run_cell, save
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
        force: run finished cells again; those that are left, if an earlier force among these cells was interrupted.
        card: gives a cell's plausibility card, if its rule has one; asked after the cell has been measured.
        skip: leave out a cell that cannot be run here, such as one whose data cannot be had, with a line saying why.

    A cell that another process is running is left out, with a line saying so. Cells that were finished before come
    first, then those that train one by one, then those that train together, whose results are saved chunk by chunk,
    and at last those that were to train together and could not.

    Raises:
        TimeLimitReached: the time left is too short for the cell at hand or for the next one.
        LimitTooShort: so it would be each time.
        RunInterrupted, HebbBenchError: as `run_cell`.
    """
    settings.world.told(partial(check_writable, results))
    yield from Grid(planned, results, settings, reporter, card, skip).run(force)


class Grid:
    """The cells of one `run_cells`, which has its arguments."""

    def __init__(
        self,
        planned: Sequence[Cell],
        results: Path,
        settings: Settings,
        reporter: Reporter,
        card: Callable[[Cell], Card | None],
        skip: bool,
    ) -> None:
        self.planned, self.results, self.settings, self.reporter = planned, results, settings, reporter
        self.card, self.skip = card, skip
        self.cache = resolve_cache(settings.cache)
        self.device = prepare_torch(settings.device)
        self._stackable: dict[str, bool] = {}
        self._absent: set[tuple[str, ...]] = set()

    def run(self, force: bool) -> Iterator[schema.Result]:
        """Every result as it is there."""
        if force:
            identities = [identity for cell in self.planned if (identity := self._identity(cell)) is not None]
            self.settings.world.told(lambda: Again(self.cache).ask(identities))
        together: list[Cell] = []
        for number, cell in enumerate(self.planned, start=1):
            identity = self._identity(cell)
            if identity is not None:
                yield from self._tried(self._one(cell, identity, f"{number}/{len(self.planned)}", together))
        left = (yield from self._together(together)) if together else []
        for number, cell in enumerate(left, start=1):
            yield from self._tried(self._alone(cell, f"{number}/{len(left)}"))

    def _identity(self, cell: Cell) -> str | None:
        """A cell's identity; None if its data cannot be had, and such cells are to be left out."""
        if cell.datasets in self._absent:
            return None
        try:
            return cell.identity(load_data(cell, self.settings, self.reporter).identity)
        except DataError as error:
            if not self.skip:
                raise
            self.reporter.say(f"  every cell on {' and '.join(cell.datasets)} is skipped: {error}")
            self._absent.add(cell.datasets)
            return None

    def _tried(self, work: Iterator[schema.Result]) -> Iterator[schema.Result]:
        """What comes of a cell, or a line saying why nothing does."""
        try:
            yield from work
        except (RunInterrupted, LimitTooShort, ResultError):
            raise
        except CellTaken as error:
            self.reporter.say(f"  skipped: {error}")
        except HebbBenchError as error:
            if not self.skip:
                raise
            self.reporter.say(f"  skipped: {error}")

    def _one(self, cell: Cell, identity: str, number: str, together: list[Cell]) -> Iterator[schema.Result]:
        """Run a cell by itself, or leave it to those that train `together`, if it is not done."""
        done = finished_before(cell, identity, self.results, self.settings)
        if self._stacks(cell):
            if done is None:
                together.append(cell)
            else:
                yield done
            return
        yield from self._alone(cell, number, done is not None)

    def _stacks(self, cell: Cell) -> bool:
        """Whether a cell's network can train together with others."""
        kind = canonical_json([cell.protocol.hash, cell.axes, cell.rule, cell.recipe.identity()])
        if kind not in self._stackable:
            settings = self.settings
            plain = not (settings.diagnostics or settings.save_weights or cell.work.diagnostics)
            self._stackable[kind] = plain and settings.world.size == 1 and can_be_together(cell, self.device)
        return self._stackable[kind]

    def _alone(self, cell: Cell, number: str, done: bool = False) -> Iterator[schema.Result]:
        """Run a cell by itself."""
        if not done:
            self._need_time(f"cell {number.replace('/', ' of ')}")
            if self.settings.limit is not None:
                self.card(cell)  # measured and kept now, because behind the cell there may be no time for it
        self.reporter.say(f"[{number}] {cell}")
        yield run_cell(cell, self.results, self.settings, self.reporter, card=partial(self.card, cell))

    def _together(self, cells: Sequence[Cell]) -> Generator[schema.Result, None, list[Cell]]:
        """Train cells in chunks, as many at a time as torch has threads, and save each chunk's results when it is done.

        Returns:
            The cells of those chunks that cannot be trained so, such as of a rule that looks at single numbers.
        """
        rules = {cell.rule: cell for cell in cells}
        warn_unkept(rules, self.settings.cache, self.reporter.say)
        for cell in rules.values():
            self.card(cell)  # measured and kept now, while no other thread is at work
        size = chunk_size(self.device)
        planned = list(chunks(cells, size))
        lanes = min(len(planned), torch.get_num_threads()) if self.device.type == "cpu" else 1
        shared = Counted(self.reporter)
        left: list[Cell] = []

        def give_up(part: Sequence[Cell], error: Exception) -> None:
            shared.say(
                f"  {len(part)} networks train one by one, not together: {type(error).__name__}: {one_line(error)}"
            )
            left.extend(part)

        def train(
            part: Sequence[Cell], chunk: Chunk, cards: Sequence[Card | None], request: StopRequest
        ) -> list[schema.Result]:
            try:
                trained = train_together(chunk, request, shared)
            except (RunInterrupted, LimitTooShort, ResultError):
                raise
            except Exception as error:
                give_up(part, error)
                return []
            found = [result.model_copy(update={"card": card}) for result, card in zip(trained, cards, strict=True)]
            for cell, result in zip(part, found, strict=True):
                save(cell, result, self.results)
                Again(self.cache).answered(result.cell)
            return found

        def pieces() -> Iterator[Callable[[StopRequest], list[schema.Result]]]:
            for part in planned:
                self._need_time(f"the next {len(part)} networks")
                try:
                    chunk = self._chunk(part, shared)
                except (RunInterrupted, LimitTooShort, ResultError):
                    raise
                except Exception as error:
                    give_up(part, error)
                    continue
                yield partial(train, part, chunk, [self.card(cell) for cell in part])

        at_once = lanes * size
        shared.phase(f"training {len(cells)} networks, up to {at_once} at once", sum(map(_steps, cells)))
        limit, began, ended = self.settings.limit, time.monotonic(), 0
        first = limit is not None and not limit.cells
        try:
            with stop_requests(limit) as stop:
                for trained in side_by_side(pieces(), lanes, stop, self.device):
                    ended += 1
                    yield from trained
        except TimeLimitReached as error:
            if limit is None or not first or ended or limit.once:
                raise
            whole, spent = sum(_steps(cell) for part in planned[:lanes] for cell in part), time.monotonic() - began
            rest = spent * (whole / shared.steps - 1) if shared.steps else None
            why = f"of {len(cells)} networks, up to {at_once} at once, none came to its end, and none is kept half-way"
            raise limit.too_short(why, None if rest is None else limit.passed() + rest) from error
        finally:
            shared.end()
        return left

    def _chunk(self, part: Sequence[Cell], shared: Reporter) -> Chunk:
        """These cells' networks, ready to train."""
        courses, identities = [], []
        for cell in part:
            dataset = load_data(cell, self.settings, Silent())
            identities.append(cell.identity(dataset.identity))
            kept = Checkpoint(self.cache / "checkpoints", identities[-1])
            courses.append(Course(cell, dataset, kept, self.device, self.cache / "scratch", shared, read_test=True))
        return Chunk(courses, identities)

    def _need_time(self, what: str) -> None:
        """Stop before beginning what could not come to its first safe stop in the time left."""
        limit, world = self.settings.limit, self.settings.world
        if limit is None:
            return
        if world.any(not limit.spare(2 * limit.setup)):
            if world.any(limit.hopeless()):
                passed = limit.passed()
                why = f"{duration(passed)} passed before anything could be begun, and as much would the next time"
                raise limit.too_short(why, 1.5 * passed)
            raise TimeLimitReached(
                f"stopped before {what}: the time limit of {duration(limit.seconds)} is near. "
                "Run the same command again to go on from there."
            )
        limit.begin()


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
