"""The command line's options that several commands have, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Texts = list[str] | None
RUNS = Path("runs")
"""Where `hebbbench run` keeps results if nothing else is said."""

Protocol = Annotated[str, typer.Option("--protocol", "-p", help="Name, or path of a .yaml file.")]
OnlyProtocols = Annotated[
    Texts, typer.Option("--protocol", "-p", help="Only this one, by name or .yaml file. Repeatable.")
]
Rule = Annotated[str, typer.Option("--rule", "-r", help="Name, or path of a .py file.")]
Axis = Annotated[Texts, typer.Option("--axis", help="name=value; an axis not named takes all. Repeatable.")]
Results = Annotated[
    Path, typer.Option(envvar="HEBBBENCH_RESULTS", help="Folder of results.", callback=lambda path: path.expanduser())
]
DataRoot = Annotated[
    Path | None, typer.Option(envvar="HEBBBENCH_DATA", help="Folder with datasets: parquet or torchvision layout.")
]
Cache = Annotated[Path | None, typer.Option(envvar="HEBBBENCH_CACHE", help="Folder for decoded data and checkpoints.")]
Limit = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Stop at a checkpoint before this much time has passed: 90s, 9m, 1h30m."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …; CUDA if there is one.")]
