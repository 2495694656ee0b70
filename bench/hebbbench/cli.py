"""The command line: commands only. `hebbbench --help` imports no torch; each command imports what it needs."""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path
from textwrap import indent
from typing import Annotated, Literal

import typer

import hebbbench
from hebbbench.errors import HebbBenchError, UnknownNameError
from hebbbench.options import RUNS, Axis, Cache, DataRoot, Device, Limit, OnlyProtocols, Protocol, Results, Rule, Texts

app = typer.Typer(
    name="hebbbench",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
list_app = typer.Typer(help="List what there is.", no_args_is_help=True)
show_app = typer.Typer(help="Show one protocol or rule in full.", no_args_is_help=True)
data_app = typer.Typer(help="Find, prepare and verify datasets.", no_args_is_help=True)
new_app = typer.Typer(help="Write the files of something new.", no_args_is_help=True)
app.add_typer(list_app, name="list")
app.add_typer(show_app, name="show")
app.add_typer(data_app, name="data")
app.add_typer(new_app, name="new")

BOARD = Path("LEADERBOARD.md")
UNFINISHED = 1
"""Exit status when a cell diverged or failed, a board is stale, or a result is invalid."""


def main() -> None:
    """Run the command line; an error made on purpose is printed without a traceback, on standard error."""
    # Threads that wait by spinning make a step 30 times slower when another process holds one of two cores.
    # The OpenMP runtime reads this when torch is imported, so it is set before.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever called
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows a question mark
    try:
        app()
    except HebbBenchError as error:
        print(f"hebbbench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except PermissionError as error:
        if error.filename is None:
            raise
        print(
            f"hebbbench: {error.filename} cannot be reached: {error.strerror}. Give permission, or name another place.",
            file=sys.stderr,
        )
        sys.exit(HebbBenchError.exit_code)


def _warn(line: str) -> None:
    print(line, file=sys.stderr)


def _version(asked: bool) -> None:
    if asked:
        print(f"hebbbench {hebbbench.__version__}")
        raise typer.Exit


@app.callback()
def common(
    asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Hebbian and biologically plausible learning rules against backpropagation, under fixed protocols."""


@app.command()
def run(
    protocol: Annotated[str | None, typer.Option("--protocol", "-p", help="Name, or path of a .yaml file.")] = None,
    rule: Annotated[Texts, typer.Option("--rule", "-r", help="Name, path of a .py file, or all. Repeatable.")] = None,
    seed: Annotated[Texts, typer.Option("--seed", "-s", help="Number, range 0-4, or all. Repeatable.")] = None,
    axis: Axis = None,
    results: Results = RUNS,
    device: Device = None,
    data_root: DataRoot = None,
    cache: Cache = None,
    force: Annotated[
        bool, typer.Option("--force", help="Run cells that are done already once more. Interrupted, it goes on.")
    ] = False,
    diagnostics: Annotated[
        bool, typer.Option("--diagnostics", help="Also record Gini, dead units, ranks, norms and alignments.")
    ] = False,
    save_weights: Annotated[
        bool, typer.Option("--save-weights", help="Also keep the plastic weights, for pictures, beside each result.")
    ] = False,
    time_limit: Limit = None,
    missing: Annotated[
        bool,
        typer.Option("--missing", help="Run what the board of --results misses, in order of value; filters as above."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be run, and run nothing.")] = False,
    executor: Annotated[
        Literal["local", "slurm"] | None,
        typer.Option(help="Run each cell as a job of Slurm, or as a process here; then --time-limit is a job's."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Jobs at a time, at most. For local: 1.", min=1)] = None,
    sbatch: Annotated[
        Texts, typer.Option(help="Option of sbatch, such as partition=gpu or gres=gpu:1. Repeatable.")
    ] = None,
) -> None:
    """Run rules under a protocol and keep one JSON file a cell.

    A finished cell is not run twice, an interrupted one goes on where it stopped. Seed 0 if no seed is given.
    Started by torchrun, each cell is divided over its processes.

    A cell that another process is running is left to it.

    Exit status: 0 all cells are done, or with --missing all that could be run here; 1 one failed or diverged, or was
    left to another process; 2 a mistake in what was asked, such as a time limit too short for anything; 75 the time
    limit came first; 130 interrupted. After 75 and 130 the same command goes on.
    """
    began = time.monotonic()
    from hebbbench.session import Session

    session = Session(
        results, protocol, rule or [], seed or [], axis or [], missing=missing, dry_run=dry_run, force=force,
        diagnostics=diagnostics, save_weights=save_weights, device=device, data_root=data_root, cache=cache,
        time_limit=time_limit, executor=executor, jobs=jobs, sbatch=sbatch or [],
    )  # fmt: skip
    if not session.run(began):
        raise typer.Exit(UNFINISHED)


@app.command()
def tune(
    protocol: Protocol,
    rule: Rule,
    choose: Annotated[list[str], typer.Option("--try", help="key=v1,v2,… such as optimizer.lr=0.01,0.1. Repeatable.")],
    seeds: Annotated[int, typer.Option(help="Tuning seeds averaged for each trial.", min=1, max=3)] = 3,
    axis: Annotated[
        Texts, typer.Option("--axis", help="name=value, or all: the mean over the rest. Repeatable.")
    ] = None,
    device: Device = None,
    data_root: DataRoot = None,
    cache: Cache = None,
) -> None:
    """Search a recipe on the validation split and print it with what the search cost.

    Scores are kept in the cache as they come: after an interruption the same command goes on.

    Exit status: 0 a recipe was found; 1 every trial diverged or failed; 2 a mistake in what was asked.
    """
    from hebbbench.world import launched

    if launched():
        raise HebbBenchError("tune runs on one process: its trials are many and small. Leave torchrun out.")
    from hebbbench import registry
    from hebbbench.progress import reporter
    from hebbbench.training.run import Settings
    from hebbbench.training.tune import TUNING_SEEDS, as_yaml, at_the_edge, fixed_axes, parse_space, search

    found = registry.protocol(protocol)
    settings = Settings(device=device, data_root=data_root, cache=cache)
    space, axes = parse_space(choose), fixed_axes(found, rule, axis or [])
    out = reporter()
    try:
        recipe, trials = search(found, rule, space, settings, TUNING_SEEDS[:seeds], out, axes)
    finally:
        out.close()
    for edge in at_the_edge(space, trials):
        print(f"  {edge}")
    path = registry.rule_path(rule).with_suffix(".yaml")
    there = path.exists()
    print(f"\nFor {path.name}, under recipes:\n" if there else f"\nFor {path.name}, to be made:\n\nrecipes:")
    print(indent(as_yaml(found, recipe), "  "), end="")


@app.command()
def cost(
    protocol: Protocol,
    rule: Annotated[list[str], typer.Option("--rule", "-r", help="Name, path of a .py file, or all. Repeatable.")],
    axis: Axis = None,
    batch: Annotated[int | None, typer.Option(help="Samples in a step; the recipe's batch size.", min=2)] = None,
    device: Device = None,
) -> None:
    """What a training step costs: operations and bytes, layer by layer for one rule, a line each for several.

    One step is taken on made-up inputs; no data is needed and nothing is kept.
    """
    from hebbbench.costs import cost_page

    print(cost_page(protocol, rule, axis or [], batch, device))


@app.command()
def check(
    rule: Annotated[Texts, typer.Argument(help="Name of a rule, or path of a .py file. Repeatable.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every rule of the registry.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the report to this file.")] = None,
) -> None:
    """Check that a rule keeps its contract, and measure how plausible it is. Exit 1 if a check fails."""
    from hebbbench import checks, registry

    if not rule and not every:
        raise UnknownNameError("nothing to check. Name a rule or the path of its file, or give --all.")
    reports = []
    for name in dict.fromkeys([*(rule or []), *(registry.rule_names() if every else [])]):
        reports.append(checks.check(name))
        print(f"{reports[-1]}\n", flush=True)
    if json_file is not None:
        checks.save_json(reports, json_file)
    failed = [report.rule for report in reports if not report.passed]
    print(f"{len(reports)} checked, {len(failed)} with a failure{': ' if failed else '.'}{', '.join(failed)}")
    if failed:
        raise typer.Exit(UNFINISHED)


@new_app.command("rule")
def new_rule(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and underscores.")],
    folder: Annotated[Path, typer.Option(help="Where to write.")] = Path("."),
) -> None:
    """Write a rule that works, its recipe and its test, to be edited into yours.

    Into a checkout's rules/ go rule and recipe alone: CONTRIBUTING.md says where the tests of its rules stand.
    """
    from hebbbench.checks.scaffold import new_rule as write

    files = write(name, folder)
    print(*(f"{path} written." for path in files), sep="\n")
    print(f"Next:   hebbbench check {files[0]}\n        hebbbench run --protocol digits-mlp --rule {files[0]}")


@list_app.command("protocols")
def list_protocols() -> None:
    """Every protocol, one line each."""
    from hebbbench import catalogue

    print(catalogue.protocols())


@list_app.command("rules")
def list_rules(cache: Cache = None) -> None:
    """Every rule, one line each: what it is, its source, and the badges of its measured plausibility."""
    from hebbbench import catalogue
    from hebbbench.progress import reporter

    print(catalogue.page(catalogue.rules(cache, lambda: reporter(stderr=True))))


@list_app.command("architectures")
def list_architectures() -> None:
    """Every architecture, one line each."""
    from hebbbench import catalogue

    print(catalogue.architectures())


@list_app.command("datasets")
@data_app.command("status")
def list_datasets(data_root: DataRoot = None, cache: Cache = None) -> None:
    """Every dataset, and where it stands on this machine."""
    from hebbbench import catalogue

    print(catalogue.datasets(data_root, cache))


@show_app.command("protocol")
def show_protocol(name: str) -> None:
    """A protocol: what it fixes, what is free, layers and parameter counts, recipes, published numbers."""
    from hebbbench import registry
    from hebbbench.show import protocol_page

    print(protocol_page(registry.protocol(name)))


@show_app.command("rule")
def show_rule(name: str, cache: Cache = None) -> None:
    """A rule: its equation, the signals it sees, its measured plausibility, its hyper-parameters and recipes."""
    from hebbbench.show import rule_page

    print(rule_page(name, cache))


@app.command()
def leaderboard(
    results: Results = Path("results"),
    protocol: OnlyProtocols = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write: .md, .csv, .json or .html; - prints.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if the file is stale.")] = False,
) -> None:
    """Write the board from the results, and from nothing else.

    The folder results goes into LEADERBOARD.md beside it, and the top rows into README.md, if that has the markers for
    them. Of other results the board is printed, as short tables on a terminal, unless --output names a file.
    """
    from hebbbench import board
    from hebbbench.record.store import check_exists

    check_exists(results)
    printed = str(output) == "-" or (output is None and not check and not board.belongs(BOARD, results))
    path = BOARD if output is None else output
    if printed and check:
        raise HebbBenchError("--check compares a file with the results. Name it with --output.")
    if printed:
        text = board.on_screen if sys.stdout.isatty() else board.build
        print(text(results, protocol or []), end="")
    elif check:
        problem = board.check(results, path, protocol or [])
        if problem is not None:
            print(problem, file=sys.stderr)
            raise typer.Exit(UNFINISHED)
        print(f"{path} is what {results}/ says.")
    else:
        for written in board.write(results, path, protocol or []):
            print(f"{written} written from {results}/.")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A rule, a result file, or a folder of results.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The same, to be taken from it.")],
    protocol: OnlyProtocols = None,
    results: Results = Path("results"),
) -> None:
    """Two rules, or two sets of results: differences paired by seed, and what differs in how they were measured.

    Of a rule the results under --results that count are taken, of a file or folder all results in it.
    """
    from hebbbench.board.compare import compare_page

    print(compare_page(first, second, results, protocol or [], _warn))


@app.command()
def explain(
    protocol: Annotated[str, typer.Argument(help="Name, or path of a .yaml file.")],
    rule: Annotated[str, typer.Argument(help="Name, or path of a .py file.")],
    axis: Annotated[
        Texts, typer.Option("--axis", help="name=value, where the rule stands at several. Repeatable.")
    ] = None,
    results: Results = Path("results"),
) -> None:
    """A row of the board: its seeds, settings and tests, why it stands there, and how to measure it again."""
    from hebbbench.board.explain import explain_page
    from hebbbench.record.store import check_exists

    check_exists(results)
    print(explain_page(protocol, rule, axis or [], results, _warn))


@app.command()
def plot(
    targets: Annotated[
        list[str],
        typer.Argument(
            help="Protocols by name or .yaml file, result files or folders; for features and updates a .safetensors."
        ),
    ],
    kind: Annotated[
        Literal["accuracy", "axis", "curve", "gini", "alignment", "heatmap", "scatter", "features", "updates"],
        typer.Option(help="Which picture."),
    ],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Where to, without ending: .png, .svg; or a folder.")
    ] = None,
    results: Results = Path("results"),
    rule: Annotated[Texts, typer.Option("--rule", "-r", help="Only these rules. Repeatable.")] = None,
    axis: Annotated[Texts, typer.Option("--axis", help="Only at name=value. Repeatable.")] = None,
    x: Annotated[
        str | None,
        typer.Option("--x", help="Axis; for accuracy also a cost such as train_seconds, for scatter a metric."),
    ] = None,
    y: Annotated[str | None, typer.Option("--y", help="Second axis of a heat map.")] = None,
    metric: Annotated[str | None, typer.Option(help="Instead of the protocol's headline.")] = None,
    curve: Annotated[str | None, typer.Option(help="Name or pattern of a curve; train.loss for --kind curve.")] = None,
    layer: Annotated[str | None, typer.Option(help="Layer, for features and updates.")] = None,
    published: Annotated[bool, typer.Option("--published", help="Accuracy, axis: show published numbers too.")] = False,
) -> None:
    """Draw a picture of results, or of saved weights, as PNG and SVG.

    accuracy ranks the rules; with --x, or where a numeric axis varies, it stands against that. axis is the same of any
    metric, scatter one metric against another, curve a quantity over training. Bars and bands are ± one standard
    deviation over seeds.
    """
    from hebbbench.plots.draw import Request, draw

    asked = Request(kind, targets, results, rule or [], axis or [], x, y, metric, curve, layer, published, output)
    for path in draw(asked):
        print(f"{path} written.")


@app.command()
def validate(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Result files or folders; all of --results if none.")
    ] = None,
    results: Results = Path("results"),
) -> None:
    """Check result files: schema, canonical form, place, and whether they count on the board."""
    from hebbbench.board import validate_results
    from hebbbench.record.store import check_exists, entries

    check_exists(results, paths or [])
    files = [file for path in paths or [] for file in (entries(path) if path.is_dir() else [path])]
    findings = validate_results(results, files if paths else None)
    for finding in findings:
        print(finding)
    bad = sum(finding.problem is not None for finding in findings)
    looked_at = len(files) if paths else len(entries(results))
    print(f"{looked_at} checked, {bad} with a problem.")
    if bad:
        raise typer.Exit(UNFINISHED)


@app.command()
def schema(
    kind: Annotated[Literal["protocol", "recipes", "result"], typer.Argument(help="Which file's schema.")],
) -> None:
    """Print the JSON Schema of protocol files, recipe files or results; editors complete YAML with it."""
    from hebbbench.schemas import schema_text

    print(schema_text(kind), end="")


@data_app.command("prepare")
def data_prepare(name: str, data_root: DataRoot = None, cache: Cache = None) -> None:
    """Find a dataset, decode it once into the cache, and check its identity."""
    from hebbbench.progress import reporter
    from hebbbench.training.run import Settings, load_with_progress

    out = reporter()
    try:
        dataset = load_with_progress(name, Settings(data_root=data_root, cache=cache), out)
    finally:
        out.close()
    print(f"{name} is ready: {len(dataset.train.labels)} training samples from {dataset.source}.")


@data_app.command("verify")
def data_verify(name: str, cache: Cache = None) -> None:
    """Recompute a dataset's identity from every cached byte and compare it with the pinned one."""
    from hebbbench import data

    identity = data.verify(name, cache=cache)
    pinned = data.pins().get(name)
    for split, found in identity.items():
        print(f"{name} {split}: {found}  {'as pinned' if pinned else 'not pinned: nothing to compare with'}")
