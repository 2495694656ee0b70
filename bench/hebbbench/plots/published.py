"""Numbers that somebody printed, where a picture can show them: as hollow marks, with their source."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hebbbench.errors import ResultError
from hebbbench.plots.collection import Found
from hebbbench.plots.names import quantity
from hebbbench.protocol import Protocol
from hebbbench.sections import Published


def printed(found: Found, metric: str, wanted: bool) -> dict[str, list[Published]]:
    """Protocol → its published numbers of that metric; none if they are not wanted.

    Raises:
        ResultError: they are wanted, and there are none.
    """
    known = found.protocols.items()
    entries = {
        name: [e for e in protocol.published if _is_of(e, metric, protocol) and e.rule in (found.rules or [e.rule])]
        for name, protocol in known
    }
    if wanted and not any(entries.values()):
        of = f" by {', '.join(found.rules)}" if found.rules else ""
        raise ResultError(f"{', '.join(found.names)}: no {metric}{of} is published. Leave out --published.")
    return entries if wanted else {}


def _is_of(entry: Published, metric: str, protocol: Protocol) -> bool:
    """Whether a published number is of what the metric measures, or of the nearest to it that a paper printed."""
    words = entry.metric.casefold()
    measured = quantity(metric)
    if measured.is_accuracy:
        return ".test." in metric and "test" in words and ("top-5" in words) == ("top5" in metric)
    if gini := re.fullmatch(r"diagnostics\.gini\..+\.(start|end)", metric):
        return "gini" in words and words.endswith(gini[1])
    return metric == (entry.beside or protocol.headline) and "alignment" in words


def note(entries: Iterable[Published]) -> list[str]:
    """What hollow marks are, as a sentence of a legend; no sentence for no entries."""
    shown = list(entries)
    if not shown:
        return []
    sources = list(dict.fromkeys(entry.source.partition(";")[0] for entry in shown))
    metrics = list(dict.fromkeys(entry.metric for entry in shown))
    return [f"Hollow: published {_listed(metrics)} ({_listed(sources)})."]


def _listed(texts: Sequence[str]) -> str:
    return " or ".join(texts) if len(texts) < 3 else f"{texts[0]} and {len(texts) - 1} others"
