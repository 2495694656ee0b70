"""Everything that any form of the board shows, computed once from the results."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from hebbbench.board.alignment import Alignments, alignments
from hebbbench.board.current import sift
from hebbbench.board.rows import Table, tables
from hebbbench.plan import CellStatus, Ignored, Sources, plan, planned_rules
from hebbbench.protocol import Protocol


@dataclass(frozen=True)
class Board:
    """The board as numbers.

    Attributes:
        tables: of protocols that score accuracy, by name, with a protocol's own next to each other.
        alignments: of the other protocols, by name.
        cells: the planned cells of all protocols.
        ignored: the files that do not count, by path.
        folder: the results as seen from where the page lies; links and commands name it.
    """

    tables: tuple[Table, ...]
    alignments: tuple[Alignments, ...]
    cells: tuple[CellStatus, ...]
    ignored: tuple[Ignored, ...]
    folder: str = "results"

    def by_protocol(self) -> dict[str, list[Table]]:
        """Protocol name → its tables, one for each combination of axis values."""
        found: defaultdict[str, list[Table]] = defaultdict(list)
        for table in self.tables:
            found[table.protocol.name].append(table)
        return dict(found)

    def cells_of(self, protocol: Protocol) -> list[CellStatus]:
        """The planned cells of one protocol."""
        return [cell for cell in self.cells if cell.protocol == protocol.name]


def collect(sources: Sources, folder: str = "results") -> Board:
    """The board of these protocols, rules and results."""
    sifted = sift(sources)
    aligned = [protocol for _, protocol in sorted(sources.protocols.items()) if not protocol.scores_accuracy]
    return Board(
        tables=tuple(tables(sources, sifted)),
        alignments=tuple(
            alignments(
                protocol,
                planned_rules(sources, protocol),
                [result for result in sifted.current if result.protocol.name == protocol.name],
            )
            for protocol in aligned
        ),
        cells=tuple(plan(sources, sifted)),
        ignored=sifted.ignored,
        folder=folder,
    )
