"""A session: what one `hebbbench run` plans, checks, runs and sums up."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hebbbench import backlog
from hebbbench.backlog import Waiting
from hebbbench.beforehand import all_rows, check, check_files, check_missing, damaged, replacements, warnings
from hebbbench.cards import card_of_cell
from hebbbench.cell import Cell
from hebbbench.errors import HebbBenchError, LimitTooShort, RunInterrupted, TimeLimitReached
from hebbbench.progress import Reporter, parse_duration, reporter
from hebbbench.record.schema import Result
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
            LimitTooShort: it would be so each time.
        """
        if self.sbatch and self.executor != "slurm":
            raise HebbBenchError("--sbatch needs --executor slurm: without it no job is handed in.")
        if self.jobs is not None and self.executor is None:
            raise HebbBenchError("--jobs needs --executor, local or slurm: without it cells run one after the other.")
        with self._world() as (world, device):
            seconds = parse_duration(self.time_limit) if self.time_limit is not None else None
            waiting = self.plan(world)
            if self.dry_run:
                check_files([item.cell for item in waiting])
                print(backlog.listing(waiting, self.results, self.data_root, self.cache, self.force))
                return True
            planned = [item.cell for item in waiting]
            ill: dict[str, str] = {}
            if self.missing and not self.force:  # one bad file is no reason to leave all the others
                ill = world.told(partial(damaged, planned, self.results))
                planned = [cell for cell in planned if str(cell) not in ill]
                for problem in ill.values():
                    print(f"skipped: {problem}", flush=True)
            if not self.missing:
                check(planned, world)
            earlier = world.told(partial(replacements, planned, self.results, self.force))
            done = self.measure(planned, self.settings(world, device, seconds, began), earlier)
        complete = self.missing or len(done) == len(planned)
        return complete and not ill and all(result.status == "ok" for result in done)

    def plan(self, world: World) -> list[Waiting]:
        """The cells in their order; of what the board misses also how much there is, printed."""
        if not self.missing:
            seeds, axes = list(self.seeds) or ["0"], list(self.axes)
            return world.told(lambda: backlog.asked_for(self.protocol, self.rules, seeds, axes))
        world.told(partial(check_missing, self.results, self.protocol, self.rules))
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
            all_rows=all_rows(world),
        )

    def measure(self, planned: Sequence[Cell], settings: Settings, earlier: Sequence[str] = ()) -> list[Result]:
        """Run the cells, and print what was measured, also of those that were done when the time was up.

        Args:
            earlier: what is to say of the results that will be replaced.
        """
        out = reporter()
        for line in [*(f"warning: {warning}" for warning in warnings(planned)), *earlier]:
            out.say(f"  {line}")
        done: list[Result] = []
        try:
            for result in self._coming(planned, settings, out):
                done.append(result)
                if result.status != "ok":
                    out.say(f"  {result.status}: {result.reason}")
        except (TimeLimitReached, LimitTooShort):
            out.close()
            if done:
                print(summary(done, self.results, self._next(planned, done), self.protocol))
            raise
        except KeyboardInterrupt as error:
            raise RunInterrupted("stopped. Run the same command again to go on.") from error
        finally:
            out.close()
        print(summary(done, self.results, self._next(planned, done), self.protocol))
        return done

    def _next(self, planned: Sequence[Cell], done: Sequence[Result]) -> str | None:
        """The command to give next: a check of the rules that did not come to a good end, else all seeds.

        Where alignment alone is measured there is no such row to complete.
        """
        ill = {result.rule.name for result in done if result.status != "ok"}
        rules = dict.fromkeys(cell.rule for cell in planned if cell.rule_name in ill)
        if rules:
            return shlex.join(["hebbbench", "check", *rules])
        rowless = self.missing or all(cell.work.alignment and cell.work.probe is None for cell in planned)
        return None if rowless else backlog.whole_row(planned, self.protocol or "", self.results)

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
