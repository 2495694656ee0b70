"""Other libraries' error texts inside our one-line messages."""

from __future__ import annotations


def one_line(error: BaseException) -> str:
    """The error's text without line breaks, or its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
