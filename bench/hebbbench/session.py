"""A session: what one `hebbbench run` plans, checks, runs and sums up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hebbbench import backlog, registry
from hebbbench.backlog import Waiting
from hebbbench.cards import card_of_cell
from hebbbench.cell import Cell
from hebbbench.errors import HebbBenchError, RunInterrupted, TimeLimitReached
from hebbbench.progress import Reporter, parse_duration, reporter
from hebbbench.record.schema import Result
from hebbbench.record.store import load, result_path
from hebbbench.report import summary
from hebbbench.world import ALONE, World, launched

if TYPE_CHECKING:
    from hebbbench.training.cluster import Executor
    from hebbbench.training.run import Settings


@dataclass(frozen=True)
class Session:
    """What was asked for, as on the command line.

    Attributes:
        results: the folder where results are kept.
        protocol, rules, seeds, axes: which cells; with `missing` they narrow down what the board of `results` misses.
        time_limit: for all cells together, or, with an `executor`, for each job.
        jobs: at a time, at most. sbatch: options of Slurm, key=value.
    """

    results: Path
    protocol: str | None = None
    rules: Sequence[str] = ()
    seeds: Sequence[str] = ()
    axes: Sequence[str] = ()
    missing: bool = False
    dry_run: bool = False
    force: bool = False
    diagnostics: bool = False
    save_weights: bool = False
    device: str | None = None
    data_root: Path | None = None
    cache: Path | None = None
    time_limit: str | None = None
    executor: Executor | None = None
    jobs: int | None = None
    sbatch: Sequence[str] = ()

    def run(self, began: float) -> bool:
        """Run the cells, and print what came of them.

        Args:
            began: when this process began, by `time.monotonic()`, where the system does not say.

        Returns:
            Whether every cell is done, without failure or divergence.

        Raises:
            HebbBenchError: something is wrong with what was asked for; nothing has run.
            RunInterrupted: a stop was asked for, or the time limit is near (`TimeLimitReached`).
        """
        if self.sbatch and self.executor != "slurm":
            raise HebbBenchError("--sbatch needs --executor slurm: without it no job is handed in.")
        if self.jobs is not None and self.executor is None:
            raise HebbBenchError("--jobs needs --executor, local or slurm: without it cells run one after the other.")
        with self._world() as (world, device):
            seconds = parse_duration(self.time_limit) if self.time_limit is not None else None
            waiting = self.plan(world)
            if self.dry_run:
                print(backlog.listing(waiting, self.results, self.data_root, self.cache))
                return True
            planned = [item.cell for item in waiting]
            if not self.missing:
                check(planned, world)
            if not self.force:
                world.told(partial(check_stored, planned, self.results))
            done = self.measure(planned, self.settings(world, device, seconds, began))
        return (self.missing or len(done) == len(planned)) and all(result.status == "ok" for result in done)

    def plan(self, world: World) -> list[Waiting]:
        """The cells in their order; of what the board misses also how much there is, printed."""
        if not self.missing:
            seeds, axes = list(self.seeds) or ["0"], list(self.axes)
            return world.told(lambda: backlog.asked_for(self.protocol, self.rules, seeds, axes))
        found, refused = world.told(
            lambda: backlog.missing(
                self.results, self.cache, protocol=self.protocol, rules=self.rules, seeds=self.seeds, axes=self.axes
            )
        )
        print("\n".join([*(f"skipped: {line}" for line in refused), backlog.headline(found, self.results)]), flush=True)
        return found

    def settings(self, world: World, device: str | None, seconds: float | None, began: float) -> Settings:
        """Where and how the cells run; from here on torch is needed."""
        from hebbbench.training.interrupt import TimeLimit, process_began
        from hebbbench.training.run import Settings

        return Settings(
            device=device,
            data_root=self.data_root,
            cache=self.cache,
            diagnostics=self.diagnostics,
            save_weights=self.save_weights,
            limit=TimeLimit(seconds, process_began(began)) if seconds is not None else None,
            world=world,
            all_rows=_all_rows(world),
        )

    def measure(self, planned: Sequence[Cell], settings: Settings) -> list[Result]:
        """Run the cells, and print what was measured, also of those that were done when the time was up."""
        again = None if self.missing else backlog.whole_row(planned, self.protocol or "")
        out = reporter()
        for warning in warnings(planned):
            out.say(f"  warning: {warning}")
        done: list[Result] = []
        try:
            for result in self._coming(planned, settings, out):
                done.append(result)
                if result.status != "ok":
                    out.say(f"  {result.status}: {result.reason}")
        except TimeLimitReached:
            out.close()
            if done:
                print(summary(done, self.results, again, self.protocol))
            raise
        except KeyboardInterrupt as error:
            raise RunInterrupted("stopped. Run the same command again to go on.") from error
        finally:
            out.close()
        print(summary(done, self.results, again, self.protocol))
        return done

    def _coming(self, planned: Sequence[Cell], settings: Settings, out: Reporter) -> Iterator[Result]:
        """Every result as it is there: of this process, or of the jobs."""
        if self.executor is None:
            from hebbbench.training.grid import run_cells

            return run_cells(
                planned,
                self.results,
                settings,
                out,
                force=self.force,
                card=lambda cell: card_of_cell(cell, self.cache, out.say),
                skip=self.missing,
            )
        from hebbbench.training.cluster import run_on

        return run_on(
            self.executor,
            planned,
            self.results,
            settings,
            out,
            force=self.force,
            skip=self.missing,
            jobs=self.jobs or (len(planned) if self.executor == "slurm" else 1),
            seconds=settings.limit.seconds if settings.limit is not None else None,
            options=self.sbatch,
        )

    def _world(self) -> AbstractContextManager[tuple[World, str | None]]:
        """The processes that torchrun started, if it did, and this one's device."""
        if not launched():
            return nullcontext((ALONE, self.device))
        if self.executor is not None:
            raise HebbBenchError(
                "torchrun divides each cell over its processes, --executor gives each cell a job. "
                "Choose one of the two."
            )
        from hebbbench.processes import joined

        return joined(self.device)


def check(planned: Sequence[Cell], world: World) -> None:
    """Build one cell of each kind, so that what is wrong comes to light before anything has run.

    Raises:
        HebbBenchError: rule, recipe, architecture and protocol do not fit together.
    """
    from hebbbench.training.run import check_cell

    all_rows = _all_rows(world)
    for cell in {(cell.rule, str(cell.axes)): cell for cell in planned}.values():
        check_cell(cell)
        if all_rows is not None:
            all_rows(cell)


def check_stored(planned: Sequence[Cell], results: Path) -> None:
    """Read what there is of these cells already, so that a damaged file is told now and not when its turn comes.

    Raises:
        ResultError: a file is no result.
    """
    for cell in planned:
        path = result_path(results, cell.protocol.name, cell.rule_name, cell.axes, cell.seed)
        if path.exists():
            load(path)


def warnings(planned: Sequence[Cell]) -> list[str]:
    """What may be meant, and may be a slip: a recipe for a name like the protocol's, a seed that no board counts."""
    pairs = dict.fromkeys((cell.rule, cell.protocol.name) for cell in planned)
    found = [stray for pair in pairs if (stray := registry.stray_recipes(*pair)) is not None]
    for protocol, seed in dict.fromkeys((cell.protocol.name, cell.seed) for cell in planned):
        own = next(cell.protocol.seeds for cell in planned if cell.protocol.name == protocol)
        if seed not in own:
            found.append(f"seed {seed} is not one of {protocol}'s, {', '.join(map(str, own))}: no board counts it")
    return found


def _all_rows(world: World) -> Callable[[Cell], bool] | None:
    """What says whether a cell's rule must be shown the rows of all processes; None for a process by itself."""
    if world.size == 1:
        return None
    from hebbbench.checks.shares import sees_all_rows

    return sees_all_rows
