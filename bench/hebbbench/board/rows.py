"""From results to rows: one row a rule, one table for each protocol and combination of axis values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from hebbbench.board.statistics import LEAST_SPREAD, BySeed, Difference, Summary, Tier, paired, summarise, tiers
from hebbbench.plan import Axes, KnownRule, Sifted, Sources, axis_points, headline, shortfall
from hebbbench.protocol import HEADLINES, Protocol
from hebbbench.recipe import Recipe, Resolved
from hebbbench.record.card import Card
from hebbbench.record.schema import PUBLISHED_EPOCH, Result
from hebbbench.sections import Published
from hebbbench.validation import canonical_json

BACKPROP = "bp"
RANDOM = "random"

SIGNAL_WORDS = {"grad": "gradient", "error": "output error", "labels": "labels", "input": "network input"}
ACTIVITY = frozenset({"pre", "post"})
LOCAL_SIGNALS = ACTIVITY | {"weight", "state"}


@dataclass(frozen=True)
class Row:
    """One rule in one table.

    Attributes:
        axes: of its results; of the table, too, unless an axis does not vary for the rule.
        results: the results that count, by seed, failed and diverged ones included.
        values: seed → headline accuracy (fraction), of the cells that have one.
        other: the accuracy that is not the headline (end-to-end where the probe is, and the other way round).
        top5: how often the class is among the five likeliest, by the headline's read-out, where there are many classes.
        best_epoch: the best test epoch of the network's own output, where the protocol has it scored; never ranked.
        gap: paired difference to backprop; None for backprop itself and where no seed is common.
        over_random: paired difference to the untrained network; None for that network itself and as above.
        flaws: why the row is not ranked; empty if it is.
        tier: None if the row is not ranked, or one seed allows no tiers.
        known: the rule as this repository has it; None for one from elsewhere.
        card: the measured plausibility of the rule's code, if any result on the board holds it.
    """

    protocol: str
    axes: Axes
    rule: str
    results: tuple[Result, ...]
    values: BySeed
    accuracy: Summary | None
    other: Summary | None
    top5: Summary | None
    best_epoch: Summary | None
    gap: Difference | None
    over_random: Difference | None
    published: tuple[Published, ...]
    flaws: tuple[str, ...]
    known: KnownRule | None
    card: Card | None = None
    tier: Tier | None = None

    @property
    def ranked(self) -> bool:
        """Whether every seed of the protocol has a value within the budget."""
        return not self.flaws

    @property
    def standing(self) -> str:
        """'below random' if the 95 % interval of the difference to it lies under 0, 'no better than random' if it
        holds 0, else nothing. Without an interval nothing either, unless several seeds agree that there is no gain."""
        difference = self.over_random
        if difference is None:
            return ""
        if difference.low is None or difference.high is None:
            return "no better than random" if difference.n > 1 and difference.mean < LEAST_SPREAD else ""
        if difference.low > 0:
            return ""
        return "below random" if difference.high < 0 else "no better than random"

    @property
    def sees(self) -> str:
        """What the rule's update asked to see beyond its layer; 'local' if nothing, but the layer's
        activity; 'nothing' if not even that."""
        asked = {signal for result in self.results for signal in result.rule.signals}
        words = sorted(SIGNAL_WORDS.get(signal, signal) for signal in asked - LOCAL_SIGNALS)
        return " + ".join(words) or ("local" if asked & ACTIVITY else "nothing")

    @property
    def epochs(self) -> tuple[str, ...]:
        """Epochs of training, as the recipes have it."""
        found = {
            (
                result.recipe.training.epochs,
                " a layer" if result.recipe.training.schedule == "layerwise" else "",
            )
            for result in self.results
        }
        return tuple(f"{count}{how}" for count, how in sorted(found))

    @property
    def recipes(self) -> tuple[Recipe | Resolved, ...]:
        """What says where the settings come from.

        The rule's recipe of today, for a search may have been widened since the results were measured and have ended at
        the same settings (a result with others does not count); of a rule from elsewhere, what its results say.
        """
        today = self.known.recipe_for(self.protocol) if self.known is not None else None
        return tuple(result.recipe for result in self.results) if today is None else (today,)

    @property
    def provenance(self) -> tuple[str, ...]:
        """Where the settings come from, with the number of trials of a search."""
        found = set()
        for recipe in self.recipes:
            trials = f", {recipe.search.trials} trials" if recipe.search is not None else ""
            found.add(recipe.provenance + trials)
        return tuple(sorted(found))

    def median_cost(self, name: str) -> float | None:
        """The median of one field of `Cost` over the seeds that finished; None if none recorded it."""
        costs = (getattr(result.cost, name) for result in self.results if result.status == "ok")
        values = [float(cost) for cost in costs if cost is not None]
        return median(values) if values else None

    @property
    def passes(self) -> float | None:
        """The counted arithmetic of a step in forward passes of the network; None if no result has it."""
        counted = [result.work for result in self.results if result.work is not None]
        return median(work.step_flops / work.forward_flops for work in counted) if counted else None


@dataclass(frozen=True)
class Table:
    """The rows of a protocol at one combination of axis values: ranked ones by accuracy, then the others."""

    protocol: Protocol
    axes: Axes
    rows: tuple[Row, ...]

    def row(self, rule: str) -> Row | None:
        """That rule's row, if it has one."""
        return next((row for row in self.rows if row.rule == rule), None)


def tables(sources: Sources, sifted: Sifted) -> list[Table]:
    """A table for every protocol that scores accuracy and combination of its axis values, with or without results.

    A rule for which an axis does not vary stands in the tables of all its values.
    """
    cards = cards_by_code(sifted.current)
    return [
        _table(
            protocol,
            axes,
            [r for r in sifted.current if r.protocol.name == name and r.axes == protocol.point(r.rule.name, axes)],
            known=sources.rules,
            cards=cards,
        )
        for name, protocol in sorted(sources.protocols.items())
        if protocol.scores_accuracy
        for axes in axis_points(protocol)
    ]


def cards_by_code(results: Iterable[Result]) -> dict[str, Card]:
    """Hash of a rule's code → its card: a property of the code, so that any result of that code may hold it.

    Where results differ, the card of the newest probes counts, and among those the one that most results hold.
    """
    held = Counter((result.rule.source_hash, result.card) for result in results if result.card is not None)

    def standing(item: tuple[tuple[str, Card], int]) -> tuple[int, int, str]:
        (_, card), count = item
        return card.version, count, canonical_json(card.model_dump(mode="json"))

    return {code: card for (code, card), _ in sorted(held.items(), key=standing)}


def _table(
    protocol: Protocol, axes: Axes, results: Sequence[Result], known: Mapping[str, KnownRule], cards: Mapping[str, Card]
) -> Table:
    by_rule: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda r: (r.rule.name, r.seed)):
        by_rule.setdefault(result.rule.name, []).append(result)
    values = {rule: _by_seed(own, protocol) for rule, own in by_rule.items()}
    rows = [_row(protocol, own, values, known=known.get(rule)) for rule, own in by_rule.items()]
    found = tiers({row.rule: row.values for row in rows if row.ranked})
    rows = [replace(row, tier=found.get(row.rule), card=cards.get(row.results[0].rule.source_hash)) for row in rows]
    return Table(protocol, axes, tuple(sorted(rows, key=_order)))


def _order(row: Row) -> tuple[bool, float, str]:
    return (not row.ranked, -row.accuracy.mean if row.accuracy is not None else 1.0, row.rule)


def _by_seed(results: Sequence[Result], protocol: Protocol) -> dict[int, float]:
    found = {result.seed: headline(result, protocol) for result in results}
    return {seed: value for seed, value in found.items() if value is not None}


def metric_by_seed(results: Sequence[Result], metric: str) -> BySeed:
    """Seed → the metric, of the cells that finished and have it."""
    found = {result.seed: result.metrics.get(metric) for result in results if result.status == "ok"}
    return {seed: item.value for seed, item in found.items() if item is not None and item.value is not None}


def _row(protocol: Protocol, results: Sequence[Result], values: Mapping[str, BySeed], known: KnownRule | None) -> Row:
    rule, axes = results[0].rule.name, results[0].axes
    own = values[rule]
    (other,) = (name for name in HEADLINES if name != protocol.headline)
    return Row(
        protocol=protocol.name,
        axes=axes,
        rule=rule,
        results=tuple(results),
        values=own,
        accuracy=summarise(list(own.values())),
        other=summarise(list(metric_by_seed(results, other).values())),
        top5=summarise(
            list(metric_by_seed(results, protocol.headline.replace(".accuracy", ".top5_accuracy")).values())
        ),
        best_epoch=summarise(list(metric_by_seed(results, PUBLISHED_EPOCH).values())),
        gap=paired(own, values[BACKPROP]) if BACKPROP in values and rule != BACKPROP else None,
        over_random=paired(own, values[RANDOM]) if RANDOM in values and rule != RANDOM else None,
        published=tuple(
            entry
            for entry in protocol.published
            if entry.rule == rule and entry.axes == axes and entry.metric == Published.model_fields["metric"].default
        ),
        flaws=_flaws(protocol, results, len(own)),
        known=known,
    )


def _flaws(protocol: Protocol, results: Sequence[Result], measured: int) -> tuple[str, ...]:
    """Why a row is not ranked: seeds without a value, by cause, and an over-spent budget."""
    causes = Counter(
        result.status if result.status != "ok" else "without a score"
        for result in results
        if shortfall(result, protocol) is not None
    )
    missing = len(protocol.seeds) - len(results)
    flaws = [f"{measured}/{len(protocol.seeds)} seeds"] if measured < len(protocol.seeds) else []
    flaws += [f"{count} {cause}" for cause, count in sorted(causes.items())]
    flaws += [f"{missing} not run"] if missing else []
    if any(result.recipe.training.epochs > protocol.budget.epochs for result in results):
        flaws.append(f"over the budget of {protocol.budget.epochs} epochs")
    return tuple(flaws)
