"""Running one cell, or finding that it has run already."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hebbbench.cell import Cell
from hebbbench.data import Dataset, load
from hebbbench.data.places import resolve_cache
from hebbbench.errors import CellTaken, HebbBenchError, ResultError, RunInterrupted
from hebbbench.files import check_writable
from hebbbench.plasticity.routes import ROUTES
from hebbbench.progress import Reporter
from hebbbench.record import schema, store, tensors
from hebbbench.record.card import Card
from hebbbench.training.again import Again
from hebbbench.training.checkpoint import Checkpoint
from hebbbench.training.claim import Claim
from hebbbench.training.course import Course
from hebbbench.training.device import prepare_torch
from hebbbench.training.interrupt import TimeLimit
from hebbbench.training.threads import fitting_threads
from hebbbench.world import ALONE, World


@dataclass(frozen=True)
class Settings:
    """Where and how cells run; nothing here may change a number. `diagnostics` adds some (see training/observer.py).

    `save_weights` keeps the plastic weights beside the result (see record/tensors.py). A cell is divided over the
    processes of `world`; `all_rows` then says whether its rule must be shown the rows of all of them.
    """

    device: str | None = None
    data_root: Path | None = None
    cache: Path | None = None
    checkpoint_seconds: float = 60.0
    diagnostics: bool = False
    save_weights: bool = False
    limit: TimeLimit | None = None
    world: World = ALONE
    all_rows: Callable[[Cell], bool] | None = None


def run_cell(
    cell: Cell,
    results: Path | None,
    settings: Settings,
    reporter: Reporter,
    *,
    force: bool = False,
    read_test: bool = True,
    card: Callable[[], Card | None] = lambda: None,
    keep: Callable[[schema.Result], object] | None = None,
) -> schema.Result:
    """Run one cell, or return its result if `results` holds it already.

    Args:
        force: run a finished cell again, and one that was interrupted from the start, unless force was used before it
            was interrupted.
        read_test: open the test split at the end; tuning leaves it closed.
        card: gives the rule's plausibility card, if it has one; asked after the cell has been measured.
        keep: called with the result of a cell that has run, before anything else can stop it from being kept.

    Raises:
        RunInterrupted: a stop was asked for, or the time limit is near (`TimeLimitReached`); the cell goes on from its
            checkpoint next time.
        CellTaken: another process that shares the cache is running it.
        HebbBenchError: the cell cannot be started, or its result cannot be saved; or it failed on one of several
            processes, and its result is saved.
    """
    world = settings.world
    if results is not None:
        world.told(partial(check_writable, result_place(cell, results).parent))
    dataset = load_data(cell, settings, reporter)
    identity = cell.identity(dataset.identity)
    diagnostics = settings.diagnostics or (cell.work.diagnostics and read_test)
    if force:
        world.told(partial(Again(resolve_cache(settings.cache)).ask, [identity]))

    def done_before(regardless: bool = False) -> schema.Result | None:
        if results is None:
            return None
        done = finished_before(cell, identity, results, settings, regardless)
        if done is not None:
            reporter.say("  done before; --force runs it again")
        return done

    done = done_before()
    if done is not None:
        return done
    claim = Claim(resolve_cache(settings.cache) / "claims", identity)
    try:
        world.told(partial(claim.take, cell))
    except CellTaken:
        done = done_before(regardless=True)  # whoever has it runs it once more
        if done is None:
            raise
        return done
    try:
        # Another process may have finished it since.
        return done_before() or _run(
            cell, dataset, identity, results, settings, reporter, read_test, diagnostics, card, keep
        )
    finally:
        claim.release()


def finished_before(
    cell: Cell, identity: str, results: Path, settings: Settings, regardless: bool = False
) -> schema.Result | None:
    """The cell's result in `results`, if with these settings it need not run again; the same on every process.

    Args:
        regardless: give it also where `--force` asks for the cell once more.
    """
    diagnostics = settings.diagnostics or cell.work.diagnostics
    weights = tensors_path(cell, results) if settings.save_weights else None
    again = Again(resolve_cache(settings.cache))

    def done() -> schema.Result | None:
        if again.asked(identity) and not regardless:
            return None
        return finished(cell, identity, results, diagnostics, weights)

    return settings.world.told(done)


def _run(
    cell: Cell,
    dataset: Dataset,
    identity: str,
    results: Path | None,
    settings: Settings,
    reporter: Reporter,
    read_test: bool,
    diagnostics: bool,
    card: Callable[[], Card | None],
    keep: Callable[[schema.Result], object] | None,
) -> schema.Result:
    """Run one cell that nobody else runs."""
    world = settings.world
    folder = resolve_cache(settings.cache) / "checkpoints"
    world.told(partial(check_writable, folder, "cache"))
    checkpoint = Checkpoint(
        folder, identity, settings.checkpoint_seconds, early=settings.limit is not None, world=world
    )
    device = prepare_torch(settings.device)
    scratch = resolve_cache(settings.cache) / "scratch"
    whole = settings.all_rows is not None and settings.all_rows(cell)
    course = Course(
        cell, dataset, checkpoint, device, scratch, reporter, read_test, diagnostics, settings.limit, world, whole
    )
    try:
        with fitting_threads(cell, device):
            ROUTES.keep(resolve_cache(settings.cache) / "routes", device)
            result = course.result(identity)
    finally:
        reporter.end()
    try:
        result = result.model_copy(update={"card": card()})
    finally:  # what was trained is kept, whatever becomes of the card
        if results is not None and world.rank == 0 and _lost(cell, results, result):
            reporter.say("  the earlier result stays, since this attempt failed")
        elif results is not None and world.rank == 0:
            save(cell, result, results, course if settings.save_weights else None)
        if keep is not None:
            keep(result)
        world.told(partial(Again(resolve_cache(settings.cache)).answered, identity))
        if result.status != "failed":
            checkpoint.remove()
        elif checkpoint.path.exists():
            reporter.say("  its checkpoint stands: the same command goes on from there, --force begins anew")
    if result.status == "failed" and world.size > 1:
        raise HebbBenchError(f"{cell}: {result.reason}")
    if course.stopped and (results is not None or keep is not None):
        raise RunInterrupted(f"stopped; {cell} is finished and saved.")
    return result


def _lost(cell: Cell, results: Path, result: schema.Result) -> bool:
    """Whether keeping a failure would cost a result that did not fail, be it of other code or another recipe."""
    path = result_place(cell, results)
    if result.status != "failed" or not path.exists():
        return False
    try:
        return store.load_own(path, results).status != "failed"
    except ResultError:
        return False


def save(cell: Cell, result: schema.Result, results: Path, course: Course | None = None) -> None:
    """Write a cell's result in its place, and beside it the weights of `course`; those of another cell do not stay."""
    store.save(result, results)
    path = tensors_path(cell, results)
    found, shapes = course.tensors() if course is not None else ({}, {})
    if found:
        tensors.save(path, found, str(cell), shapes, result.cell)
    elif tensors.identity(path) != result.cell:
        path.unlink(missing_ok=True)


def result_place(cell: Cell, results: Path) -> Path:
    """Where a cell's result lies, if there is one."""
    return store.result_path(results, cell.protocol.name, cell.rule_name, cell.axes, cell.seed)


def tensors_path(cell: Cell, results: Path) -> Path:
    """Where a cell's weights are kept, if they are: beside its result."""
    return result_place(cell, results).with_suffix(tensors.SUFFIX)


def finished(
    cell: Cell, identity: str, results: Path, diagnostics: bool = False, weights: Path | None = None
) -> schema.Result | None:
    """The cell's result in `results`, if it stands for this very cell. A failed one does not count: it runs again.

    Args:
        diagnostics: whether a result without them counts as unfinished.
        weights: a file that holds this very cell's weights, without which it does, too, unless it diverged.
    """
    path = result_place(cell, results)
    if not store.holds(path):
        return None
    result = store.load_own(path, results)
    if weights is not None and result.status != "diverged" and tensors.identity(weights) != identity:
        return None
    if diagnostics and not any(name.startswith(schema.DIAGNOSTICS) for name in (*result.metrics, *result.curves)):
        return None
    return result if result.cell == identity and result.status in ("ok", "diverged") else None


def load_data(cell: Cell, settings: Settings, reporter: Reporter) -> Dataset:
    """The cell's dataset, with the unlabelled images it learns from, if there are any.

    Raises:
        HebbBenchError: as `load`; or the two have images of different shapes.
    """
    first, *others = (load_with_progress(name, settings, reporter) for name in cell.datasets)
    return first.beside(others[0]) if others else first


def load_with_progress(name: str, settings: Settings, reporter: Reporter) -> Dataset:
    """The dataset; decoding it the first time shows a bar, and is no part of what a time limit is too short for."""
    last, began = 0, time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if last == 0:
            reporter.phase(f"decoding {name}", total)
        reporter.advance(done - last)
        last = done

    dataset = settings.world.prepared(
        partial(load, name, data_root=settings.data_root, cache=settings.cache, progress=progress)
    )
    if last and settings.limit is not None:
        settings.limit.once += time.monotonic() - began
    return dataset
