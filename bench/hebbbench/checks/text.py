"""Checks of a rule's file as text: what it says about itself, and what it reaches for."""

from __future__ import annotations

import ast
import inspect
import re

import hebbbench
from hebbbench.checks.subject import Failed, Subject
from hebbbench.plasticity.rule import SIGNALS, STEP_SIGNALS

SOURCE = re.compile(r"arXiv|doi|\b(1[89]|20)\d\d\b", re.IGNORECASE)
EQUATION = re.compile(r"\n.*\S\s*[=←]\s*\S")
REFLECTION = {"gc", "inspect", "sys", "ctypes", "traceback", "weakref", "importlib", "builtins", "os", "threading"}


def docstring(subject: Subject) -> str:
    """One line, an equation and a source."""
    written = subject.module.__doc__ or subject.kind.__doc__ or ""
    text = inspect.cleandoc(written)
    if not text:
        raise Failed('there is no docstring. Begin the file with """Name: one line, the equation, the source."""')
    missing = []
    if len(text.splitlines()[0]) < 10:
        missing.append("a first line that says what the rule does")
    if not EQUATION.search(written):
        missing.append("the equation, on a line of its own (Δw_k = …)")
    if not SOURCE.search(text):
        missing.append("the source, with a year, arXiv number or DOI")
    if missing:
        raise Failed(f"the docstring lacks {' and '.join(missing)}.")
    return text.splitlines()[0]


def public_names(subject: Subject) -> str:
    """Nothing of the harness but its public names; nothing that looks around in the process."""
    tree = ast.parse(subject.path.read_text(encoding="utf-8"))
    found: list[str] = []
    for node in ast.walk(tree):
        line = f"line {getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.split(".")[0]
                if root in REFLECTION or root == "hebbbench":
                    found.append(f"{line} imports {alias.name}")
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            root = module.split(".")[0]
            private = [alias.name for alias in node.names if alias.name not in hebbbench.__all__]
            if root in REFLECTION or (root == "hebbbench" and (module != "hebbbench" or private)):
                found.append(f"{line} imports {', '.join(alias.name for alias in node.names)} from {module}")
        elif isinstance(node, ast.Global | ast.Nonlocal):
            found.append(f"{line} writes the global {', '.join(node.names)}")
        elif isinstance(node, ast.Attribute) and _private(node):
            found.append(f"{line} reaches for .{node.attr}")
    if found:
        raise Failed(
            f"{'; '.join(found[:4])}. A rule knows its signals, torch and the public names of hebbbench "
            "(dir(hebbbench) lists them); what it remembers belongs in `state`."
        )
    return ""


def _private(node: ast.Attribute) -> bool:
    own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    return node.attr.startswith("_") and not node.attr.startswith("__") and not own


def signals(subject: Subject) -> str:
    """The equation names the signals it sees, each as a plain parameter without a default."""
    shape = subject.kind.shape
    known = ", ".join(STEP_SIGNALS if shape == "step" else SIGNALS)
    parameters = list(inspect.signature(subject.kind.equation()).parameters.values())[1:]
    if not parameters:
        raise Failed(f"{shape} asks for no signal. Name at least one of {known}.")
    for parameter in parameters:
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or parameter.default is not parameter.empty:
            raise Failed(
                f"the parameter '{parameter}' of {shape} is not a plain name; each is a signal ({known}), "
                "without default, * or **. Hyper-parameters are fields of the class."
            )
    return ", ".join(subject.kind.signals)
