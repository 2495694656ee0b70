"""How long one waits: for the help page, the first training step and the result of the README's first run."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

FIRST_STEP = """
import os, sys, time
from pathlib import Path
from hebbbench import registry
from hebbbench.cell import cells
from hebbbench.progress import Silent
from hebbbench.training.run import Settings, run_cell

class First(Silent):
    def phase(self, name, total, done=0):
        self.name = name

    def advance(self, steps=1, note=""):
        if self.name == "training":
            print(time.time(), flush=True)
            os._exit(0)

(cell,) = cells(registry.protocol("digits-mlp"), ["ghl"], [0], {})
run_cell(cell, None, Settings(cache=Path(sys.argv[1])), First())
"""


def help_page() -> float:
    """Wall seconds of `hebbbench --help`, the best of three."""
    found = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "hebbbench", "--help"], check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - began)
    return min(found)


def first_step() -> float:
    """Wall seconds from starting a process to the end of its first training step, its data decoded before."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            began = time.time()
            command = [sys.executable, "-c", FIRST_STEP, folder]
            ended = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return ended - began


def quick_start() -> float:
    """Wall seconds of the README's run, from starting the program to its end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hebbbench", "run", "--protocol", "digits-mlp", "--rule", "ghl"]
        began = time.perf_counter()
        subprocess.run([*command, "--results", folder, "--cache", folder], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began
