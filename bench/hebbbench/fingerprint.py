"""The fingerprint of a Python file's code, by which results say with which code they were measured."""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from functools import lru_cache


@lru_cache(maxsize=512)
def code_hash(text: str) -> str:
    """SHA-256 of a file's code lines. Comments, blank lines and docstrings do not count: they change no number.

    Built from the text, not from the syntax tree, whose printed form differs between Python versions.

    Raises:
        SyntaxError: the text is not valid Python.
    """
    tree = ast.parse(text)
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            _blank(lines, node.body[0])
    code = "\n".join(line.rstrip() for line in lines if line.strip())
    return hashlib.sha256(code.encode()).hexdigest()


def _blank(lines: list[str], statement: ast.stmt) -> None:
    """Cut a statement out of the lines, and leave what shares its first and last one. Columns count UTF-8 bytes."""
    first, last = statement.lineno - 1, (statement.end_lineno or statement.lineno) - 1
    before = lines[first].encode()[: statement.col_offset].decode()
    after = lines[last].encode()[statement.end_col_offset :].decode()
    lines[first : last + 1] = [before + after, *[""] * (last - first)]
