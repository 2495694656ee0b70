"""A cell: protocol × axis values × rule × recipe × seed. The unit of work, of resuming and of results."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from hebbbench import registry
from hebbbench.errors import HebbBenchError, ProtocolError
from hebbbench.protocol import Protocol
from hebbbench.recipe import Recipe, Resolved, resolve
from hebbbench.record.schema import NUMERICS_VERSION, cell_digest
from hebbbench.sections import AxisValue, stands_for


@dataclass(frozen=True)
class Cell:
    """One cell. `rule` is a registered name or the path of a file; `rule_name` is its stem."""

    protocol: Protocol
    axes: dict[str, AxisValue]
    rule: str
    recipe: Resolved
    seed: int

    @cached_property
    def work(self) -> Protocol:
        """The protocol at this cell's axis values."""
        return self.protocol.at(self.axes)

    @cached_property
    def rule_name(self) -> str:
        """The name under which results are kept."""
        return registry.rule_path(self.rule).stem

    @cached_property
    def source_hash(self) -> str:
        """Fingerprint of the rule's code."""
        return registry.rule_source_hash(self.rule)

    @cached_property
    def network_hash(self) -> str:
        """Fingerprint of the network's code."""
        return registry.architecture_source_hash(self.work.architecture.name)

    def check_code(self) -> None:
        """See that the code at hand is what the fingerprints are of; to be asked when it has been imported.

        Raises:
            HebbBenchError: a file was edited behind this cell's planning: its result would bear the hash of other code.
        """
        network = self.work.architecture.name
        for what, path, planned, now in (
            ("rule", registry.rule_path(self.rule), self.source_hash, registry.rule_source_hash(self.rule)),
            (
                "architecture",
                registry.architecture_path(network),
                self.network_hash,
                registry.architecture_source_hash(network),
            ),
        ):
            if planned != now:
                raise HebbBenchError(
                    f"{path} was edited after this command began: {self} would be of another {what} than was planned. "
                    "Nothing of it is kept; give the command again to run it as the file is now."
                )

    @cached_property
    def unlabelled(self) -> str | None:
        """The dataset whose images it learns from in place of the training split, if its rule sees no label."""
        unlabelled, training = self.work.data.unlabelled, self.recipe.training
        if unlabelled is None or training.readout == "trained" or not training.epochs:
            return None
        rule = registry.rule(self.rule)
        return None if rule.end_to_end() or "labels" in rule.signals else unlabelled

    @property
    def datasets(self) -> tuple[str, ...]:
        """The names of the datasets it needs."""
        return (self.work.data.dataset, *([self.unlabelled] if self.unlabelled is not None else []))

    def identity(self, data: dict[str, str]) -> str:
        """Digest of everything that decides the cell's numbers.

        Args:
            data: the identity of its data, split → SHA-256; `unlabelled` is one if it learns from such images.
        """
        first = registry.first_architecture_hash(self.work.architecture.name)
        return cell_digest(
            numerics=NUMERICS_VERSION,
            protocol=self.protocol.hash,
            axes=self.axes,
            rule=self.rule_name,
            source=self.source_hash,
            recipe=self.recipe,
            seed=self.seed,
            data=data,
            network=None if self.network_hash == first else self.network_hash,
        )

    def __str__(self) -> str:
        axes = "".join(f" {name}={value}" for name, value in sorted(self.axes.items()))
        return f"{self.protocol.name}{axes} · {self.rule_name} · seed {self.seed}"


def cells(
    protocol: Protocol,
    rules: list[str],
    seeds: list[int],
    axes: dict[str, AxisValue],
    recipe: Recipe | None = None,
) -> list[Cell]:
    """Every cell asked for, seeds outermost, so that each rule has a number early.

    Args:
        axes: fixed axis values; an axis not named takes all its values, as far as they concern a rule.
        recipe: used instead of the rules' own.

    Raises:
        HebbBenchError: a name, a value or a recipe is wrong; nothing has run yet.
    """
    for name in axes:
        if name not in protocol.axes:
            raise ProtocolError(
                f"protocol '{protocol.name}' has no axis '{name}'. Its axes: {', '.join(protocol.axes) or 'none'}."
            )
    names = sorted(protocol.axes)
    points = [
        dict(zip(names, values, strict=True))
        for values in product(*([axes[name]] if name in axes else protocol.axes[name].values for name in names))
    ]
    resolved = [
        (point, rule, resolve(work, recipe or registry.recipe(rule, protocol.name), rule))
        for point, work in [(point, protocol.at(point)) for point in points]
        for rule in rules
        if protocol.takes(registry.rule_path(rule).stem, point)
    ]
    return [Cell(protocol, point, rule, chosen, seed) for seed in seeds for point, rule, chosen in resolved]


MANY = 10_000
"""Seeds of one range: more is a slip of the hand."""


def parse_seeds(texts: list[str], protocol: Protocol) -> list[int]:
    """Seeds from the command line: numbers, ranges such as 0-4, or `all` of the protocol's.

    Raises:
        ProtocolError: a text is none of these.
    """
    seeds: list[int] = []
    for text in texts:
        if text == "all":
            seeds += protocol.seeds
        elif match := re.fullmatch(r"(\d+)-(\d+)", text):
            first, last = int(match[1]), int(match[2])
            if first > last:
                raise ProtocolError(f"seed range '{text}' runs backwards; write {last}-{first}.")
            if last - first >= MANY:
                raise ProtocolError(f"seed range '{text}' names {last - first + 1} seeds. Ask for {MANY} at most.")
            seeds += range(first, last + 1)
        elif text.isdecimal():
            seeds.append(int(text))
        else:
            raise ProtocolError(f"seed '{text}' is not a number, a range such as 0-4, or 'all'.")
    return list(dict.fromkeys(seeds))


def parse_axes(texts: list[str], protocol: Protocol) -> dict[str, AxisValue]:
    """Axis values from the command line, name=value, matched by their text, or as numbers, to the protocol's values.

    Raises:
        ProtocolError: an axis or a value does not exist.
    """
    parsed: dict[str, AxisValue] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ProtocolError(f"--axis '{text}' is not name=value. The axes: {', '.join(protocol.axes) or 'none'}.")
        axis = protocol.axes.get(name)
        if axis is None:
            raise ProtocolError(
                f"protocol '{protocol.name}' has no axis '{name}'. Its axes: {', '.join(protocol.axes) or 'none'}."
            )
        matching: list[Any] = [candidate for candidate in axis.values if stands_for(value, candidate)]
        if not matching:
            raise ProtocolError(f"axis {name} = '{value}' is not in protocol '{protocol.name}'. Values: {axis.values}.")
        parsed[name] = matching[0]
    return parsed
