"""One row of the board in words: its seeds, its settings, why it stands where it does, and how to measure it again."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from hebbbench import registry
from hebbbench.board import alignment, text
from hebbbench.board.columns import SCORES
from hebbbench.board.facts import commit, differing, flat
from hebbbench.board.rows import BACKPROP, RANDOM
from hebbbench.board.section import measured_by, printed
from hebbbench.board.standing import difference_text, standing
from hebbbench.board.statistics import summarise
from hebbbench.board.subject import Subject, find
from hebbbench.board.text import NOTHING
from hebbbench.plan import headline, shortfall
from hebbbench.progress import duration
from hebbbench.recipe import Recipe, Resolved, Search, resolve
from hebbbench.record.card import badges
from hebbbench.record.environment import code
from hebbbench.record.schema import Result
from hebbbench.report import point
from hebbbench.report import table as as_text

AGAIN = "again"
"""The folder into which a cell is run once more."""


def explain_page(
    protocol: str, rule: str, axes: Sequence[str], results: Path, warn: Callable[[str], None] = lambda line: None
) -> str:
    """The row as text.

    Args:
        protocol, rule: name or path. axes: name=value, where the rule stands at several.
        warn: is told of each damaged file among the results.

    Raises:
        HebbBenchError: there is no such protocol, axis or value, the rule is not on that board, or it stands at several
            combinations of axis values and none is named.
    """
    subject = find(protocol, rule, axes, results, warn)
    about = registry.summary(subject.rule) if subject.rule in registry.rule_names() else "a rule from elsewhere"
    sections = {
        "Standing": _standing(subject),
        "Seeds": [_seeds(subject)],
        "Settings": _settings(subject),
        "Measured": [line.replace("`", "") for line in measured_by(subject.results)] + _repeats(subject.results),
        "Files that do not count": [
            f"{text.in_folder(item.path, subject.folder)}: {text.in_folder(item.reason, subject.folder)}"
            for item in subject.ignored
        ],
        "To measure it again" if subject.results else "To measure it": _again(subject),
    }
    head = f"{subject.protocol.name} {point(subject.axes)}".rstrip() + f" · {subject.rule}\n{about}"
    return "\n\n".join([head, *("\n".join([f"{name}\n", *lines]) for name, lines in sections.items() if lines)])


def _standing(subject: Subject) -> list[str]:
    """The row's numbers and place, and why that is its place."""
    protocol, table, row = subject.protocol, subject.table, subject.row
    if not subject.results:
        return ["No result of it counts."]
    if table is None or row is None:  # cosines, which rank nothing
        found = summarise([value for r in subject.results if (value := headline(r, protocol)) is not None])
        shown = alignment.spread(found) if found is not None else "No cosine"
        return [f"{shown}. {alignment.asked(protocol)}".replace("`", "").replace("*", "")]
    scored = SCORES[protocol.headline][1]
    lines = [f"Test accuracy of {scored}, %: {text.spread(row.accuracy)}, mean ± standard deviation (seeds)."]
    if row.best_epoch is not None:
        best = text.spread(row.best_epoch)
        lines.append(f"Best test epoch of the network's own output, %: {best}. As papers print it; never ranked.")
    for name, difference in ((BACKPROP, row.gap), (RANDOM, row.over_random)):
        lines += [f"Gap to {name}: {difference_text(difference)}."] if difference is not None else []
    lines += standing(row, table)
    lines += [f"Plausibility, measured: {', '.join(badges(row.card))}."] if row.card is not None else []
    if table.axes != subject.axes:
        lines.append(f"So it stands in the table at {text.axes_text(table.axes)}, where an axis does not vary for it.")
    return [*lines, *_published(subject)]


def _published(subject: Subject) -> list[str]:
    """What others printed of it here."""
    return [
        f"Published, never ranked: {printed(entry)} ({entry.metric}), {entry.source.rstrip('.')}."
        for entry in subject.protocol.published
        if entry.rule == subject.rule and entry.axes == subject.axes
    ]


def _seeds(subject: Subject) -> str:
    """A line for each of the protocol's seeds."""
    protocol = subject.protocol
    head, shown = ("accuracy %", text.percent) if protocol.scores_accuracy else ("cosine", alignment.signed)
    others = {
        f"− {name}": row.values
        for name in (BACKPROP, RANDOM)
        if name != subject.rule and subject.table is not None and (row := subject.table.row(name)) is not None
    }
    by_seed = {result.seed: result for result in subject.results}
    header = ["seed", "status", head, *others, "training", "commit", "why there is no number"]
    rows = []
    for seed in sorted(protocol.seeds):
        result = by_seed.get(seed)
        if result is None:
            rows.append([seed, "not run", *[""] * (len(header) - 2)])
            continue
        value = headline(result, protocol)
        gaps = [
            NOTHING if value is None or seed not in values else text.points(value - values[seed])
            for values in others.values()
        ]
        number = NOTHING if value is None else shown(value)
        cost = duration(result.cost.train_seconds)
        reason = shortfall(result, protocol) or ""
        rows.append([seed, result.status, number, *gaps, cost, commit(result.environment), reason])
    width = len(header) if any(row[-1] for row in rows) else len(header) - 1
    return as_text([row[:width] for row in rows], header[:width])


def _settings(subject: Subject) -> list[str]:
    """Where the settings come from, what finding them cost, and how they differ from the protocol's own."""
    work = subject.protocol.at(subject.axes)
    today = subject.known.recipe_for(subject.protocol.name) if subject.known is not None else None
    recipes: Sequence[Recipe | Resolved] = [today] if today is not None else [r.recipe for r in subject.results]
    lines = list(dict.fromkeys(_origin(recipe) for recipe in recipes)) or ["None of its own: the protocol's defaults."]
    used = subject.results[0].recipe if subject.results else resolve(work, today, subject.rule)
    chosen = differing(flat(used.identity()), flat(resolve(work, None, subject.rule).identity()))
    if not chosen:
        return [*lines, "They are the protocol's own."]
    rows = [[name, here, default] for name, (here, default) in chosen.items()]
    return [*lines, "", as_text(rows, ["setting", "here", "the protocol's own"])]


def _origin(recipe: Recipe | Resolved) -> str:
    source = f" Source: {recipe.source.rstrip('.')}." if recipe.source else ""
    search = recipe.search
    if search is None:
        return f"From: {recipe.provenance}.{source} No search."
    return (
        f"From: {recipe.provenance}, in {text.count(search.trials, 'trial')} and {duration(search.seconds)} on the "
        f"{search.split} split, of {search.space.rstrip('.')}.{_scores(search)}{source}"
    )


def _scores(search: Search) -> str:
    """What the choices of a search scored, if that was written down."""
    told = (f"{name} {NOTHING if score is None else text.percent(score)}" for name, score in search.scores.items())
    return f" Scores, %: {'; '.join(told)}." if search.scores else ""


def _repeats(results: Sequence[Result]) -> list[str]:
    """Whether the first steps of these runs, taken twice, gave the same bits."""
    tried = [result.environment.determinism_probe for result in results]
    tried = [found for found in tried if found is not None]
    return [f"First steps taken twice gave the same bits in {sum(map(bool, tried))} of {len(tried)}."] if tried else []


def _again(subject: Subject) -> list[str]:
    """The commands that run a seed once more, with the code that measured it, and compare."""
    rule = subject.rule if subject.known is not None else f"path/to/{subject.rule}.py"
    run = ["hebbbench", "run", "--protocol", subject.given, "--rule", rule]
    run += [part for name, value in sorted(subject.axes.items()) for part in ("--axis", f"{name}={value}")]
    if not subject.results:
        return [shlex.join([*run, "--seed", "all", "--results", subject.folder])]
    result = next((result for result in subject.results if result.status == "ok"), subject.results[0])
    environment = result.environment
    run += ["--seed", str(result.seed), "--results", AGAIN]
    run += ["--device", environment.device] if environment.device else []
    pair = [subject.path(result.seed, folder) for folder in (subject.folder, AGAIN)]
    lines = [shlex.join(run), shlex.join(["hebbbench", "compare", *pair])]
    if environment.commit is not None and environment.commit != code().commit:
        lines = [f"git checkout {environment.commit[:12]}", lines[0], "git checkout -", lines[1]]
    if environment.commit is None:
        lines.insert(0, "# the commit that measured is unknown")
    if environment.dirty:
        lines.insert(0, "# measured with uncommitted changes, which are in no commit")
    return lines
