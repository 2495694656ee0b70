"""What there is, a line each: `hebbbench list`. Rules are read from their files, in groups; torch is not imported."""

from __future__ import annotations

import ast
import re
import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hebbbench import cards, registry
from hebbbench.data import status
from hebbbench.errors import HebbBenchError
from hebbbench.progress import Reporter
from hebbbench.record.card import BADGES, Card, letters, locality
from hebbbench.report import table

SHAPES = ("delta", "loss", "step")
ACTIVITY = frozenset({"pre", "post"})
OUTSIDE = frozenset({"grad", "error", "labels", "input"})

CONTROLS = "Backpropagation and controls"
FEEDBACK = "Error feedback: gradients that travel back on other ways"
GUIDED = "Guided Hebbian: the layer's activity, and a signal from outside the layer"
HEBBIAN = "Hebbian and competitive: nothing but the layer's activity"
OBJECTIVES = "Local objectives: a loss of the layer's own"
PROCEDURES = "Procedures of the whole network"
GROUPS = (CONTROLS, FEEDBACK, GUIDED, HEBBIAN, OBJECTIVES, PROCEDURES)

_NAME = r"[^\W\d_a-z][\w’'-]+(?: [^\W\d_a-z][\w’'-]+)?"
_MORE = rf"(?:,? (?:& |and )?{_NAME}|,? et al\.)*"
_REFERENCE = re.compile(
    rf"(?P<author>{_NAME}){_MORE},? (?P<year>(?:1[89]|20)\d\d)\b|(?P<arxiv>arXiv:\d{{4}}\.\d{{4,5}})"
)


@dataclass(frozen=True)
class Entry:
    """One rule as its file describes it, with its measured card, if it has one."""

    name: str
    summary: str
    source: str
    group: str
    recipes: int
    card: Card | None


def entry(name: str, card: Card | None) -> Entry:
    """The entry of a rule, by name or path.

    Raises:
        HebbBenchError: there is no such rule, or its file or its recipes' cannot be read.
    """
    tree = ast.parse(registry.rule_path(name).read_text(encoding="utf-8"))
    first, _, rest = (ast.get_docstring(tree) or "").partition("\n")
    return Entry(name, first, source(rest), group(tree), len(registry.recipes(name)), card)


def source(text: str) -> str:
    """The first reference in a text, short: 'Oja 1982' (its first author) or 'arXiv:2601.21367'; '–' if it has none."""
    found = _REFERENCE.search(" ".join(text.split()))
    if found is None:
        return "–"
    return found["arxiv"] or f"{found['author']} {found['year']}"


def group(tree: ast.Module) -> str:
    """Which of `GROUPS` a rule's file belongs to, by the shape of its equation, its signals and its feedback path."""
    bodies = [node.body for node in tree.body if isinstance(node, ast.ClassDef)]
    statements = [statement for body in bodies for statement in body]
    equations = {node.name: node for node in statements if isinstance(node, ast.FunctionDef) and node.name in SHAPES}
    if "step" in equations:
        return PROCEDURES
    if "loss" in equations:
        return OBJECTIVES
    signals = {parameter.arg for node in equations.values() for parameter in node.args.args}
    if signals & ACTIVITY:
        return GUIDED if signals & OUTSIDE else HEBBIAN
    assigned = [node for node in statements if isinstance(node, ast.AnnAssign | ast.Assign)]
    return FEEDBACK if any(_sets_feedback(node) for node in assigned) else CONTROLS


def _sets_feedback(node: ast.AnnAssign | ast.Assign) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    named = any(isinstance(target, ast.Name) and target.id == "feedback" for target in targets)
    return named and not (isinstance(node.value, ast.Constant) and node.value.value == "exact")


def rules(cache: Path | None, make_reporter: Callable[[], Reporter]) -> list[Entry]:
    """Every rule of the registry. Cards that the cache lacks are measured, which takes about half a second each.

    Args:
        cache: where the cards are kept.
        make_reporter: called if any are to be measured; says how that goes.

    Raises:
        HebbBenchError: a rule's file is not valid Python, or its recipes are malformed.
    """
    names = registry.rule_names()
    found = {name: cards.kept(name, cache) for name in names}
    missing = [name for name in names if found[name] is None]
    if missing:
        reporter = make_reporter()
        cards.warn_unkept(missing, cache, reporter.say)
        reporter.phase("measuring plausibility, once", len(missing))
        for name in missing:
            try:
                found[name] = cards.card(name, cache)
            except HebbBenchError as error:
                reporter.say(f"  warning: {error}")
            reporter.advance(1, name)
        reporter.close()
    return [entry(name, found[name]) for name in names]


def page(entries: Sequence[Entry]) -> str:
    """The entries by group, one line each, no wider than the terminal; where there is none, nothing is cut."""
    heads = ("rule", "what it is", "source", "locality", "badges", "recipes")
    rows = {item.name: _cells(item) for item in entries}
    widths = [max(len(row[i]) for row in (heads, *rows.values())) for i in range(len(heads))]
    columns = shutil.get_terminal_size((sum(widths) + 2 * len(heads), 24)).columns
    widths[1] = min(widths[1], max(24, columns - sum(widths) + widths[1] - 2 * (len(heads) - 1)))

    def line(cells: Sequence[str]) -> str:
        cut = [cells[0], textwrap.shorten(cells[1], widths[1], placeholder="…"), *cells[2:]]
        return "  ".join(cell.ljust(width) for cell, width in zip(cut, widths, strict=True)).rstrip()

    lines = [line(heads)]
    for title in GROUPS:
        names = [item.name for item in entries if item.group == title]
        lines += ["", title, "-" * len(title), *(line(rows[name]) for name in names)] if names else []
    key = "; ".join(f"{badge.letter} {badge.word}" for badge in BADGES)
    return "\n".join([*lines, "", f"badges, measured: {key}", "In full: hebbbench show rule NAME"])


def _cells(item: Entry) -> tuple[str, ...]:
    measured = (locality(item.card), " ".join(letters(item.card, "·"))) if item.card else ("not measured", "")
    return (item.name, item.summary, item.source, *measured, str(item.recipes))


def protocols() -> str:
    """Every protocol of the registry.

    Raises:
        ProtocolError: one is malformed.
    """
    rows = [
        (item.name, f"v{item.version}", item.data.dataset, item.architecture.name, len(item.seeds), item.title)
        for item in map(registry.protocol, registry.protocol_names())
    ]
    return table(rows, ["protocol", "version", "data", "architecture", "seeds", "title"])


def architectures() -> str:
    """Every architecture of the registry."""
    rows = [(name, registry.summary(name)) for name in registry.architecture_names()]
    return table(rows, ["architecture", "what it is"])


def datasets(data_root: Path | None, cache: Path | None) -> str:
    """Every dataset, and where it stands on this machine."""
    rows = [
        (
            item.name,
            "embedded" if item.embedded else "no" if item.found is None else "yes",
            "yes" if item.cached else "no",
            "yes" if item.pinned else "no",
            item.advice if item.embedded or item.found is None else f"{item.advice} Found in {item.found}.",
        )
        for item in status(data_root, cache)
    ]
    return table(rows, ["dataset", "here", "decoded", "pinned", "what to do"], fit=True)
