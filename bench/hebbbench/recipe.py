"""A recipe: what a rule chooses within a protocol, where it comes from, and what a run makes of both."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from hebbbench.errors import ProtocolError
from hebbbench.protocol import Protocol, read_path, write_path
from hebbbench.sections import TRAINING_FREE, Init, Optimizer, Options, Training
from hebbbench.validation import WHOLE, Growing, Strict, read_model, validate


class Search(Growing):
    """What a searched recipe cost: the ledger that makes 'heavily tuned' a number."""

    later: ClassVar = frozenset({"scores"})

    trials: PositiveInt
    seconds: NonNegativeFloat
    split: Literal["validation"]
    space: str
    scores: dict[str, Annotated[float, Field(ge=0, le=1)] | None] = Field(
        {}, description="what each choice scored, as an accuracy from 0 to 1; none = it diverged or failed"
    )


class Recipe(Strict):
    """A rule's choices for one protocol, and where they come from."""

    provenance: Literal["paper", "searched", "default"]
    source: str = ""
    search: Search | None = None
    hyperparameters: Options = {}
    architecture: Options = {}
    epochs: NonNegativeInt | None = None
    batch_size: PositiveInt | None = None
    schedule: Literal["joint", "layerwise"] | None = None
    annealing: Literal["constant", "cosine", "linear"] | None = None
    optimizer: Optimizer | None = None
    rest: Optimizer | None = None
    init: Init | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if (self.provenance == "searched") != (self.search is not None):
            raise ValueError("provenance 'searched' and a 'search' block (trials, seconds, split, space) go together")
        if self.provenance == "paper" and not self.source:
            raise ValueError("provenance 'paper' needs a 'source'")
        return self

    def choices(self) -> dict[str, Any]:
        """The training fields this recipe sets, by name."""
        return {name: getattr(self, name) for name in TRAINING_FREE if getattr(self, name) is not None}


class RecipeFile(Strict):
    """A rule's recipes: protocol name → recipe; `default` stands for any protocol not named."""

    recipes: dict[str, Recipe]


class Resolved(Strict):
    """A recipe after the protocol's frozen values are filled in: all that a run needs to know."""

    provenance: Literal["paper", "searched", "default"]
    source: str
    search: Search | None
    hyperparameters: dict[str, Any]
    architecture: dict[str, Any]
    training: Training

    def identity(self) -> dict[str, Any]:
        """The part that decides a number."""
        return self.model_dump(mode="json", include={"hyperparameters", "architecture", "training"})


def load_recipes(path: Path) -> dict[str, Recipe]:
    """The recipes in a rule's YAML file, by protocol name; none if there is no such file."""
    return dict(read_model(RecipeFile, path).recipes) if path.exists() else {}


def resolve(protocol: Protocol, recipe: Recipe | None, rule: str) -> Resolved:
    """`recipe` within `protocol`, which stands at one point of its axes: what an axis sets, no recipe changes.

    Where the depth is an axis, a recipe's list with one value a plastic layer is cut to the depth.

    Raises:
        ProtocolError: the recipe sets what the protocol freezes, or spends more than the budget.
    """
    recipe = recipe or Recipe(provenance="default")
    choices = recipe.choices()
    touched = [*choices, *(f"architecture.{option}" for option in recipe.architecture)]
    for entry in touched:
        if entry not in protocol.free:
            listed = ", ".join(protocol.free) if protocol.free else "nothing but hyperparameters"
            raise ProtocolError(
                f"the recipe of rule '{rule}' sets '{entry}', which protocol '{protocol.name}' v{protocol.version} "
                f"freezes. Free: {listed}. Remove '{entry}' from the recipe."
            )
    if recipe.epochs is not None and recipe.epochs > protocol.budget.epochs:
        raise ProtocolError(
            f"the recipe of rule '{rule}' asks for epochs = {recipe.epochs}; protocol '{protocol.name}' allows "
            f"at most {protocol.budget.epochs}."
        )
    if protocol.alignment is not None and choices.get("schedule", protocol.training.schedule) == "layerwise":
        raise ProtocolError(
            f"rule '{rule}' under protocol '{protocol.name}': schedule = 'layerwise' with alignment, which is measured "
            "at the end of one training of all layers. Set schedule: joint."
        )
    resolved = {
        "training": protocol.training.model_copy(update=choices).model_dump(mode="json"),
        "architecture": {"options": {**protocol.architecture.options, **recipe.architecture}},
    }
    hyperparameters = {
        name: protocol.hyperparameters.get(name, value) for name, value in recipe.hyperparameters.items()
    }
    optimizer = resolved["training"]["optimizer"]
    whole = protocol.model_dump(mode="json", context=WHOLE)
    for axis in protocol.axes.values():
        if axis.path.startswith(("training.", "architecture.options.")):
            write_path(resolved, axis.path, read_path(whole, axis.path, axis.path))
        if axis.path == "architecture.options.depth":
            depth = protocol.architecture.options["depth"]
            hyperparameters = {name: _first(value, depth) for name, value in hyperparameters.items()}
            optimizer["lr"] = _first(optimizer["lr"], depth)
    return Resolved(
        provenance=recipe.provenance,
        source=recipe.source,
        search=recipe.search,
        hyperparameters=hyperparameters,
        architecture=resolved["architecture"]["options"],
        training=validate(Training, resolved["training"], f"rule '{rule}' under protocol '{protocol.name}'"),
    )


def _first(value: Any, depth: int) -> Any:
    return value[:depth] if isinstance(value, list) else value
