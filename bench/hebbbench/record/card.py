"""The plausibility card of a rule: what its update was measured to depend on and to need. Nothing in it is declared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from pydantic import NonNegativeFloat, PositiveInt

from hebbbench.validation import Strict

Locality = Literal["synapse", "unit", "layer", "global"]

LOCALITY: dict[Locality, str] = {
    "synapse": "only on its own weight, its input x_i, its unit's potential and state",
    "unit": "on other weights or inputs of its own unit too",
    "layer": "on other units of its layer too",
    "global": "on what lies outside its layer: labels, errors, or other layers",
}
"""What the update of one weight was seen to depend on."""

CARD_VERSION = 4
"""Raised by hand whenever a change to the probes changes a card; kept cards are then measured anew."""


class Card(Strict):
    """One rule, measured on a small network that the harness trains (see `hebbbench.checks.probes`).

    version: of the probes that measured it.
    locality: the widest thing that changed an update (`LOCALITY`).
    learns: whether any update was different from zero.
    uses_labels: other labels gave another update of a hidden layer.
    needs_backward_pass: a gradient goes from layer to layer (another one at the next layer gave another update), or the
        rule draws one from a graph it does not declare.
    transports_weights: later weights that leave every activity as it was still changed the update.
    needs_phases: the network ran forward more than once for one update.
    update_locked: the update was not there when the next layer began; of a procedure, later layers changed it.
    sees_earlier_layers, sees_later_layers: their weights or activity changed the update, the layer's own input (and,
        for earlier ones, its output) being held; null for earlier ones where a layer sees several inputs an update.
    couples_samples: what a sample adds to the update depends on the other samples of the batch.
    online_capable: with one sample at a time the update is finite, and zero only if it is so for a batch.
    activations_held: activities of a layer kept in memory for each layer of depth, at the end of the forward pass; what
        does not grow with the batch is no activity.
    memory_grows_with_depth: whether that is more than rounding.
    """

    version: PositiveInt = CARD_VERSION
    locality: Locality
    learns: bool
    uses_labels: bool
    needs_backward_pass: bool
    transports_weights: bool
    needs_phases: bool
    update_locked: bool
    sees_earlier_layers: bool | None
    sees_later_layers: bool
    couples_samples: bool
    online_capable: bool
    activations_held: NonNegativeFloat
    memory_grows_with_depth: bool

    def text(self) -> str:
        """The card in lines, each with what was measured."""
        rows = [
            ("locality", f"{self.locality}: the update of a weight depends {LOCALITY[self.locality]}"),
            ("labels", "used" if self.uses_labels else "not used"),
            (
                "backward pass",
                "needed" if self.needs_backward_pass else "not needed: no gradient goes from layer to layer",
            ),
            ("weight transport", "yes: later weights steer the update" if self.transports_weights else "no"),
            ("phases", "more than one forward pass an update" if self.needs_phases else "one forward pass an update"),
            ("update-locked", "yes: waits for later layers" if self.update_locked else "no: there in the forward pass"),
            ("batch", "samples act on one another" if self.couples_samples else "every sample on its own"),
            ("online", "learns from one sample at a time" if self.online_capable else "no update at batch size one"),
            (
                "memory",
                f"{self.activations_held:.1f} activities held a layer of depth"
                + (" (grows with depth)" if self.memory_grows_with_depth else " (constant in depth)"),
            ),
        ]
        if not self.learns:
            rows.insert(0, ("update", "always zero: nothing is learnt"))
        width = max(len(name) for name, _ in rows)
        return "\n".join(["Plausibility, measured", *(f"  {name.ljust(width)}  {text}" for name, text in rows)])


class Badge(NamedTuple):
    """One word of a card, its letter for narrow tables, and what it says of the rule's update."""

    word: str
    letter: str
    meaning: str
    holds: Callable[[Card], bool]


BADGES = (
    Badge("labels", "L", "changes with the labels", lambda card: card.uses_labels),
    Badge(
        "backward pass", "B", "needs a gradient that goes from layer to layer", lambda card: card.needs_backward_pass
    ),
    Badge("weight transport", "W", "reads later weights, not only activity", lambda card: card.transports_weights),
    Badge("phases", "P", "needs more than one forward pass", lambda card: card.needs_phases),
    Badge("update-locked", "U", "waits for later layers", lambda card: card.update_locked),
    Badge("online", "O", "learns from one sample at a time", lambda card: card.learns and card.online_capable),
)
"""What a rule needs, and last what it can, in the order in which it is told."""


def locality(card: Card) -> str:
    """The first badge: how far an update looks, or that there is none."""
    return card.locality if card.learns else "no learning"


def badges(card: Card) -> list[str]:
    """A card in a few words for a row of the board: the locality, then what a rule needs, then what it can."""
    return [locality(card), *(badge.word for badge in BADGES if badge.holds(card))]


def letters(card: Card, absent: str = "") -> str:
    """The badges after the locality as letters, `LBUO`; `absent` stands in the place of each that does not hold."""
    return "".join(badge.letter if badge.holds(card) else absent for badge in BADGES)
