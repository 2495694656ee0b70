"""Cells as jobs: of a real Slurm on this one machine, where it is installed, and as processes."""

from __future__ import annotations

import getpass
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from conftest import At, Lab
from hebbbench.errors import HebbBenchError
from hebbbench.record import store
from hebbbench.training import cluster
from hebbbench.training.cluster import run_on
from hebbbench.training.run import Settings

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES State=UP
"""


def free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture
def slurm(tmp_path_factory, monkeypatch) -> Iterator[Path]:
    """A Slurm of one node, in a folder of its own."""
    pytest.importorskip("submitit")
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if lacking:
        pytest.skip(f"Slurm is not installed here (no {', '.join(lacking)}); on Debian: slurm-wlm and munge")
    if os.geteuid() != 0:
        pytest.skip("slurmd starts jobs only for root")
    root = Path(tmp_path_factory.mktemp("slurm"))
    for folder in ("state", "spool"):
        (root / folder).mkdir()
    key = root / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host = socket.gethostname().split(".")[0]
    configuration = root / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(root=root, host=host, ports=free_ports(2), user=getpass.getuser()))
    monkeypatch.setenv("SLURM_CONF", str(configuration))
    kinds = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    files = [f"--{name}={root}/munge.{suffix}" for name, suffix in kinds.items()]
    try:
        subprocess.run(["munged", "--force", *files], check=True, capture_output=True)
        subprocess.run(["slurmctld", "-f", configuration], check=True, capture_output=True)
        subprocess.run(["slurmd", "-f", configuration], check=True, capture_output=True)
        until(lambda: b"idle" in subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True).stdout)
        yield root
    finally:
        for name in ("slurmd", "slurmctld", "munge"):
            pid = root / f"{name}.pid"
            if pid.exists():
                os.kill(int(pid.read_text()), 15)
        kill_what_is_left(root)


def kill_what_is_left(root: Path) -> None:
    """A killed job's `srun` waits for ever once its Slurm is gone."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"SLURM_CONF={root}/".encode() in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.03)


@pytest.fixture(autouse=True)
def looks_often(monkeypatch) -> None:
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 0.2)


@pytest.fixture(autouse=True)
def hears_ctrl_c() -> Iterator[None]:
    """Whoever begins the tests in the background of a script has Ctrl-C ignored, and so have they."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def deaf_to_a_job_s_signal_again() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR2)
    yield
    signal.signal(signal.SIGUSR2, before)


def settings(lab: Lab) -> Settings:
    return Settings(device="cpu", cache=lab.cache, checkpoint_seconds=0.1)


def running() -> str:
    """The number of the one job that runs, or nothing."""
    shown = subprocess.run(["squeue", "-h", "-r", "-t", "R", "-o", "%i"], capture_output=True, text=True, check=True)
    return shown.stdout.strip()


@pytest.mark.slow
def test_a_killed_job_and_a_preempted_one_go_on_from_their_checkpoints(slurm, lab):
    """A job is killed, later sent back to the queue as pre-emption does, and measures what a whole run does."""
    cell = lab.cell("bp", lab.protocol("digits-mlp", {"training.epochs": 800, "budget.epochs": 800}))
    whole = lab.run(cell)
    checkpoint = lab.cache / "checkpoints" / f"{whole.cell}.pt"
    trouble: list[BaseException] = []

    def disturb() -> None:
        try:
            until(checkpoint.exists)
            first = running()
            subprocess.run(["scancel", "--full", "--signal=KILL", first], check=True)
            until(lambda: running() not in ("", first))
            before = checkpoint.stat().st_mtime_ns
            until(lambda: checkpoint.stat().st_mtime_ns > before)
            subprocess.run(["scontrol", "requeue", running()], check=True)
        except BaseException as error:
            trouble.append(error)

    seen = At()
    thread = threading.Thread(target=disturb)
    thread.start()
    (result,) = run_on("slurm", [cell], lab.results, settings(lab), seen)
    thread.join()
    assert trouble == []
    assert result.cost.resumed >= 2
    assert result.measurement() == whole.measurement()
    assert any("vanished; handed in again, to go on from its checkpoint" in text for text in seen.said)
    (kept,) = store.scan(lab.results)
    assert (kept.problem, kept.result) == (None, result)


@pytest.mark.slow
def test_processes_of_this_machine_take_the_same_path(lab):
    pytest.importorskip("submitit")
    raises = lab.rule("raises", "weight: raise ValueError('on purpose')")
    planned = [lab.cell("random"), lab.cell(raises)]
    seen = At(phase="cells")
    results = {
        f"{result.rule.name} {result.seed}": result
        for result in run_on("local", planned, lab.results, settings(lab), seen, jobs=2)
    }
    assert {name: result.status for name, result in results.items()} == {
        "random 0": "ok",
        "raises 0": "failed",
    }
    assert seen.count == 2
    assert len(list(lab.results.rglob("*.json"))) == 2
    assert results["random 0"].measurement() == lab.run(planned[0]).measurement()


def test_a_job_that_vanishes_again_and_again_is_given_up(monkeypatch, lab):
    class Lost:
        job_id = "7"

        class paths:
            result_pickle = lab.root / "nothing"

        @staticmethod
        def stderr() -> str:
            return "Traceback\nIllegal instruction\n"

        @staticmethod
        def cancel(check: bool) -> None:
            pass

    class Nowhere:
        folder = lab.root
        handed_in = 0

        def submit(self, work) -> Lost:
            self.handed_in += 1
            return Lost()

        def batch(self):
            return nullcontext()

    executor = Nowhere()
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(cluster, "_executor", lambda *_: executor)
    monkeypatch.setattr(cluster, "_alive", lambda *_: set())
    seen = At()
    assert list(run_on("slurm", [lab.cell("random")], lab.results, settings(lab), seen)) == []
    assert executor.handed_in == cluster.ATTEMPTS
    assert "its job vanished 3 times. The last one's words: Illegal instruction" in seen.said[-1]


def test_what_is_not_there_is_said(monkeypatch, lab):
    def run(*options: str) -> None:
        list(run_on("slurm", [lab.cell("random")], lab.results, settings(lab), At(), options=options))

    pytest.importorskip("submitit")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(HebbBenchError, match="there is no sbatch here"):
        run()
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(HebbBenchError, match="--sbatch 'gpu' is not key=value"):
        run("gpu")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(HebbBenchError, match=r"pip install 'hebbbench\[cluster\]'"):
        run()


def test_a_gpu_that_the_login_node_lacks_may_be_one_of_its_nodes(monkeypatch, lab):
    pytest.importorskip("submitit")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for device, said in (("cuda:99", "there is no sbatch here"), ("gpu", "device 'gpu' cannot be used here")):
        asked = Settings(device=device, cache=lab.cache)
        with pytest.raises(HebbBenchError, match=said):
            list(run_on("slurm", [lab.cell("random")], lab.results, asked, At()))


def test_a_slurm_that_takes_no_job_is_told_in_its_own_words(monkeypatch, tmp_path, lab):
    pytest.importorskip("submitit")
    for name in ("sbatch", "srun", "squeue"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition: gpus' >&2\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    planned, options = [lab.cell("random")], ["partition=gpus"]
    with pytest.raises(HebbBenchError, match=r"^sbatch takes no job: .*invalid partition: gpus.* --sbatch"):
        list(run_on("slurm", planned, lab.results, settings(lab), At(), options=options))


def test_a_cell_that_could_not_be_run_as_a_job_gives_a_status_of_one(lab, monkeypatch, capsys):
    from hebbbench import cli

    monkeypatch.setattr(cluster, "run_on", lambda *_, **__: iter([lab.run(lab.cell("random"))]))
    arguments = ["hebbbench", "run", "-p", lab.protocol_file(), "-r", "random", "-s", "0-1", "--executor", "local"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--results", str(lab.results)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    assert "random" in capsys.readouterr().out


class Process:
    """A job that is a process of this machine. It says which signals never reach it, and ends at the nth SIGTERM."""

    PROGRAM = """
import signal, sys, time
left = int(sys.argv[1])
def told(number, frame):
    global left
    left -= 1
    if not left: sys.exit(7)
signal.signal(signal.SIGTERM, told)
print(*sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), flush=True)
while True: time.sleep(1)
"""

    def __init__(self, last: int = 1) -> None:
        command = [sys.executable, "-c", self.PROGRAM, str(last)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.job_id = str(self.process.pid)
        assert self.process.stdout is not None
        self.deaf = self.process.stdout.readline().split()
        self.process.stdout.close()

    def done(self) -> bool:
        return self.process.poll() is not None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_whoever_is_stopped_takes_the_jobs_along_and_waits_for_them(lab, monkeypatch, number):
    jobs: list[Process] = []

    def hand_in(_executor: object, works: list[object]) -> list[Process]:
        signal.raise_signal(number)  # even now
        jobs.extend(Process() for _ in works)
        return jobs

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cluster, "_hand_in", hand_in)
    with pytest.raises(KeyboardInterrupt):
        list(run_on("local", [lab.cell("random")], lab.results, settings(lab), At()))
    (job,) = jobs
    assert job.process.returncode == 7
    assert job.deaf == [str(int(signal.SIGHUP)), str(int(signal.SIGINT))]
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


@pytest.mark.slow
def test_a_cell_that_is_forced_runs_again_as_a_job_once(lab):
    pytest.importorskip("submitit")
    cell = lab.cell("random")
    before = lab.run(cell, results=lab.results)
    (forced,) = run_on("local", [cell], lab.results, settings(lab), At(), force=True)
    assert forced.started != before.started or forced.cost != before.cost
    assert forced.measurement() == before.measurement()
    assert cluster.Work(cell, lab.results, settings(lab))() == forced  # as a job that was requeued behind its end


def test_of_a_job_s_traceback_the_error_is_told():
    submitit = pytest.importorskip("submitit")
    trace = "Traceback (most recent call last):\n  File\nValueError: what it was\n"
    told = submitit.core.utils.FailedJobError(f"failed with trace:\n{'-' * 22}\n{trace}\n{'-' * 22}\nSee\n  - /a/b.err")
    assert cluster._last_line(str(told)) == "ValueError: what it was"
    assert cluster._last_line("one\ntwo\n") == "two"
    assert cluster._last_line("") == "no message"


def test_a_further_ctrl_c_tells_the_jobs_once_more():
    jobs = [Process(1), Process(2)]
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    cluster._stop("local", jobs)
    timer.join()
    assert [job.process.returncode for job in jobs] == [7, 7]


def test_a_job_speaks_on_a_terminal_that_lacks_its_letters(lab, monkeypatch):
    written = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", written)
    found = cluster.Work(lab.cell("bp"), lab.results, Settings(device="cpu", cache=lab.cache))()
    assert getattr(found, "status", found) == "ok"
    assert b"? bp ? seed 0" in written.buffer.getvalue()


def test_a_job_that_is_terminated_before_its_cell_begins_ends(lab, monkeypatch):
    monkeypatch.setattr(cluster, "run_cells", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # as submitit has it
    try:
        with pytest.raises(KeyboardInterrupt):
            cluster.Work(lab.cell("bp"), lab.results, settings(lab))()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_job_saves_its_cell_before_it_goes_back_into_the_queue(lab, monkeypatch):
    put_back = []

    def submitits(number: int, frame: object) -> None:
        put_back.append(len(lab.checkpoints()))
        sys.exit(99)

    before = signal.signal(signal.SIGUSR2, submitits)
    cell = lab.cell("bp")
    whole = lab.run(cell)
    told = At(4, lambda: signal.raise_signal(signal.SIGUSR2), "training")
    monkeypatch.setattr(cluster, "Plain", lambda: told)
    work = cluster.Work(cell, lab.results, Settings(device="cpu", cache=lab.cache))
    try:
        with pytest.raises(SystemExit) as left:
            work()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (left.value.code, put_back) == (99, [1])
    resumed = lab.run(cell)
    assert resumed.cost.resumed == 1
    assert resumed.measurement() == whole.measurement()
