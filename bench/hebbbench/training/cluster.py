"""Cells as jobs of a cluster, or as processes of this machine: each writes its own result, this process looks on.

A job runs one cell and nothing else, so results need no collecting: every job writes its file, whole or not at all. A
job that Slurm stops, at its time limit or for somebody else, goes back into the queue and on from its checkpoint; one
that vanishes without a word is handed in again.
"""

from __future__ import annotations

import io
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch

from hebbbench.cards import card_of_cell
from hebbbench.cell import Cell
from hebbbench.data.places import resolve_cache, resolve_data_root
from hebbbench.errors import DataError, HebbBenchError, RunInterrupted
from hebbbench.files import check_writable
from hebbbench.progress import Plain, Reporter, Silent
from hebbbench.record import schema
from hebbbench.training.again import Again
from hebbbench.training.device import check_device, named_device
from hebbbench.training.grid import run_cells
from hebbbench.training.interrupt import terminated_as_by_ctrl_c, undisturbed
from hebbbench.training.run import Settings, load_data, load_with_progress

Executor = Literal["local", "slurm"]

ARRAY = 1000
"""Jobs in one array: what Slurm takes unless its administrator allows more."""

ATTEMPTS = 3
"""How often a cell is handed in, the first time included, whose job vanishes."""

GONE = 3
"""Looks in a row at which a job is neither in the queue nor has answered: a shared folder may show a file late."""

UNLIMITED_SECONDS = 30 * 24 * 3600.0
"""For processes of this machine without a time limit, for which submitit wants a number."""

LOOK_SECONDS = 1.0
"""Between two looks at the jobs."""


@dataclass(frozen=True)
class Refused:
    """What a job hands back in place of a result: why its cell could not be run."""

    reason: str


@dataclass(frozen=True)
class Work:
    """One cell as a job."""

    cell: Cell
    results: Path
    settings: Settings

    def __call__(self) -> schema.Result | Refused:
        """Run the cell. When a stop is asked for it is checkpointed, and the process ends without an answer."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # as the command line has it
        with terminated_as_by_ctrl_c():
            return self._run(Plain())

    def _run(self, out: Reporter) -> schema.Result | Refused:
        cache = self.settings.cache
        requeue = _stop_before_requeue()
        try:
            found = list(
                run_cells(
                    [self.cell],
                    self.results,
                    self.settings,
                    out,
                    card=lambda cell: card_of_cell(cell, cache, out.say),
                )
            )
        except RunInterrupted as error:
            out.say(f"  {error}")
            requeue()
            sys.exit(error.exit_code)
        except HebbBenchError as error:
            return Refused(str(error))
        return found[0] if found else Refused("another process is running it")

    def checkpoint(self) -> Any:
        """The same work once more, for submitit: the cell goes on from its newest checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _stop_before_requeue() -> Callable[[], None]:
    """Make the signal on which submitit puts a job back into the queue ask the cell to stop first.

    Returns:
        What then puts the job back, and ends the process, if that signal has come.
    """
    submitits, outside = signal.getsignal(signal.SIGUSR2), signal.getsignal(signal.SIGTERM)
    came: list[tuple[int, FrameType | None]] = []

    def requeue() -> None:
        if came and callable(submitits):
            submitits(*came[0])

    def on_signal(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))
        if signal.getsignal(signal.SIGTERM) == outside:
            requeue()  # no cell runs yet, so there is nothing to save
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGUSR2, on_signal)
    return requeue


@dataclass
class Running:
    """A cell that has been handed in."""

    work: Work
    job: Any
    attempts: int = 1
    gone: int = 0


def run_on(
    kind: Executor,
    planned: Sequence[Cell],
    results: Path,
    settings: Settings,
    reporter: Reporter,
    *,
    force: bool = False,
    skip: bool = False,
    jobs: int = 1,
    seconds: float | None = None,
    options: Sequence[str] = (),
) -> Iterator[schema.Result]:
    """Run each cell as a job, at most `jobs` at a time, and yield its result as it is there.

    Args:
        seconds: a job's time limit; whole minutes for Slurm. It goes back into the queue when it is up.
        options: of sbatch, key=value.
        skip: leave out cells whose data cannot be had.

    Raises:
        HebbBenchError: submitit or Slurm is not there, or takes no job, an option is malformed, the device is none, or
            no cell's data can be had.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the jobs have been told to stop, and their checkpoints stand.
    """
    if kind == "local":
        check_device(settings.device)
    else:
        named_device(settings.device)  # the nodes may have what the login node lacks
    cache = resolve_cache(settings.cache).resolve()
    check_writable(cache / "jobs", "cache")
    executor = _executor(kind, cache / "jobs" / f"{time.strftime('%Y%m%d-%H%M%S')}", jobs, seconds, options)
    settings = replace(settings, cache=cache, data_root=_whole(resolve_data_root(settings.data_root)), limit=None)
    works = [Work(cell, results.resolve(), settings) for cell in _with_data(planned, settings, reporter, skip)]
    check_writable(results)
    if force:
        Again(cache).ask(work.cell.identity(load_data(work.cell, settings, Silent()).identity) for work in works)
    waiting, running = works, list[Running]()
    reporter.say(f"{len(works)} jobs, at most {jobs} at a time; their words are under {executor.folder}")
    reporter.phase("cells", len(works))
    try:
        with terminated_as_by_ctrl_c():
            while waiting or running:
                room = ARRAY if kind == "slurm" else jobs - len(running)  # Slurm's array keeps the rest back by itself
                part, waiting = waiting[:room], waiting[room:]
                with undisturbed():
                    running += [Running(work, job) for work, job in zip(part, _hand_in(executor, part), strict=True)]
                alive = _alive(kind, running)
                for item in list(running):
                    answer = _answer(item, item.job.job_id in alive, executor, reporter)
                    if answer is None:
                        continue
                    running.remove(item)
                    if isinstance(answer, Refused):
                        reporter.say(f"  {item.work.cell}: not run: {answer.reason}")
                    else:
                        yield answer
                    reporter.advance(1, str(item.work.cell))
                time.sleep(LOOK_SECONDS if running else 0)
    finally:
        _stop(kind, [item.job for item in running])
        reporter.end()


def _stop(kind: Executor, jobs: Sequence[Any]) -> None:
    """Have jobs stop. Those of this machine are waited for, which are told once more by a further Ctrl-C, and then
    leave their checkpoints as they are.

    submitit's own way for them, an interrupt, ends in a traceback and kills a cell that takes longer than a second.
    """
    if kind == "slurm":
        for job in jobs:
            job.cancel(check=False)
        return
    while left := [job for job in jobs if not job.done()]:
        try:
            for job in left:
                os.kill(int(job.job_id), signal.SIGTERM)
            while not all(job.done() for job in left):
                time.sleep(LOOK_SECONDS / 10)
        except KeyboardInterrupt:
            continue


def _hand_in(executor: Any, works: Sequence[Work]) -> list[Any]:
    """The jobs of these cells, handed in together.

    Raises:
        HebbBenchError: Slurm does not take them.
    """
    from submitit.core.utils import FailedJobError

    if not works:
        return []
    try:
        with executor.batch():
            return [executor.submit(work) for work in works]
    except FailedJobError as error:
        said = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
        raise HebbBenchError(
            f"sbatch takes no job: {said or 'it does not say why'}. Check the options given as --sbatch, and that "
            "squeue answers here."
        ) from error


def _answer(item: Running, alive: bool, executor: Any, reporter: Reporter) -> schema.Result | Refused | None:
    """What has become of a job; None while there is nothing to say. One that vanished is handed in again."""
    if item.job.paths.result_pickle.exists():
        error = item.job.exception()
        answer: schema.Result | Refused = Refused(_last_line(str(error))) if error is not None else item.job.result()
        return answer
    item.gone = 0 if alive else item.gone + 1
    if item.gone < GONE:
        return None
    if item.attempts == ATTEMPTS:
        return Refused(
            f"its job vanished {ATTEMPTS} times. The last one's words: {_last_line(item.job.stderr() or '')}"
        )
    reporter.say(
        f"  {item.work.cell}: its job {item.job.job_id} vanished; handed in again, to go on from its checkpoint"
    )
    with undisturbed():
        (item.job,) = _hand_in(executor, [item.work])
    item.attempts, item.gone = item.attempts + 1, 0
    return None


def _alive(kind: Executor, running: Sequence[Running]) -> set[str]:
    """The numbers of those jobs that wait or run; all of them if Slurm does not answer."""
    if kind == "local":
        return {item.job.job_id for item in running if not item.job.done()}
    asked = subprocess.run(["squeue", "--noheader", "--array", "--me", "--format=%i"], capture_output=True, text=True)
    return set(asked.stdout.split()) if asked.returncode == 0 else {item.job.job_id for item in running}


def _executor(kind: Executor, folder: Path, jobs: int, seconds: float | None, options: Sequence[str]) -> Any:
    """submitit's executor for these jobs."""
    try:
        import submitit
    except ImportError as error:
        raise HebbBenchError("--executor needs submitit. Install it: pip install 'hebbbench[cluster]'.") from error
    if kind == "slurm" and shutil.which("sbatch") is None:
        raise HebbBenchError("--executor slurm: there is no sbatch here. Log in to the cluster, or use local.")
    logging.getLogger("submitit").setLevel(logging.ERROR)
    forever = {f"{kind}_max_num_timeout": 10**6}
    executor = submitit.AutoExecutor(folder, cluster=kind, **forever)
    minutes = math.ceil((seconds or UNLIMITED_SECONDS) / 60)
    if kind == "local":
        executor.update_parameters(timeout_min=minutes, gpus_per_node=torch.cuda.device_count())
        return executor
    executor.update_parameters(
        name="hebbbench",
        slurm_array_parallelism=jobs,
        slurm_additional_parameters={"requeue": True, **_sbatch(options)},
        **({"timeout_min": minutes, "slurm_signal_delay_s": min(90, 15 * minutes)} if seconds else {}),
    )
    return executor


def _sbatch(options: Sequence[str]) -> dict[str, str]:
    """Options of sbatch from key=value texts."""
    for option in options:
        if not all(option.partition("=")):
            raise HebbBenchError(f"--sbatch '{option}' is not key=value, such as partition=gpu or gres=gpu:1.")
    return {key.lstrip("-"): value for key, _, value in (option.partition("=") for option in options)}


def _with_data(planned: Sequence[Cell], settings: Settings, reporter: Reporter, skip: bool) -> list[Cell]:
    """The cells whose data can be had; decoded here, once, so that not every job does it."""
    had: dict[str, bool] = {}
    for name in dict.fromkeys(name for cell in planned for name in cell.datasets):
        try:
            load_with_progress(name, settings, reporter)
            had[name] = True
        except DataError as error:
            if not skip:
                raise
            reporter.say(f"  every cell on {name} is skipped: {error}")
            had[name] = False
    return [cell for cell in planned if all(had[name] for name in cell.datasets)]


def _whole(path: Path | None) -> Path | None:
    return None if path is None else path.resolve()


def _last_line(text: str) -> str:
    """The last line of what a job said; of submitit's words the last of the traceback, which it puts between rules."""
    lines = text.strip().splitlines()
    rules = [number for number, line in enumerate(lines) if line and not line.strip("-")]
    text = "\n".join(lines[: rules[-1]] if rules else lines)
    return (text.strip().splitlines() or ["no message"])[-1]
