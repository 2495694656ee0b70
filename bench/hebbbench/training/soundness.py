"""What is wrong with a cell is told before anything has run, by the name of what is to be changed."""

from __future__ import annotations

from traceback import walk_tb

import torch

from hebbbench import registry
from hebbbench.cell import Cell
from hebbbench.data import DatasetSpec, dataset_spec
from hebbbench.errors import HebbBenchError, ProtocolError, RuleError, one_line, place_in
from hebbbench.plasticity.layer import PlasticLayer
from hebbbench.protocol import ALIGNMENT
from hebbbench.training import outline
from hebbbench.training.alignment import layer_of, short
from hebbbench.training.coherence import check_work
from hebbbench.training.learner import Learner


def check_cell(cell: Cell, given: str | None = None) -> None:
    """Build what a cell trains, and drop it: whatever is wrong with it comes to light before anything has run.

    Args:
        given: where its hyper-parameters come from, if not from its rule's recipe.

    Raises:
        HebbBenchError: rule, recipe, architecture and protocol do not fit together.
    """
    check_work(cell.work)
    spec = dataset_spec(cell.work.data.dataset)
    outline.count(cell.work.architecture.name, cell.recipe.architecture, spec.name)
    if cell.recipe.training.epochs:
        outline.check_batch(
            cell.work.architecture.name, cell.recipe.architecture, spec.name, cell.recipe.training.batch_size
        )
    where = given or registry.recipe_place(cell.rule, cell.protocol.name)
    lists = _check_hyperparameters(cell, where, spec)
    try:
        learner = Learner(cell, spec.shape, spec.classes, torch.device("cpu"))
    except RuleError as error:
        if not lists:
            raise
        raise RuleError(f"{where}: {error}") from error
    except HebbBenchError:
        raise
    except Exception as error:
        raise broken(cell, error) from error
    plastic = [short(layer.name) for layer in learner.plasticity.layers]
    if not cell.work.scores_accuracy and layer_of(cell.work.headline.removeprefix(ALIGNMENT)) not in plastic:
        raise ProtocolError(
            f"{cell}: headline = '{cell.work.headline}' is of no plastic layer. Valid: "
            f"{', '.join(f'{ALIGNMENT}{name}' for name in plastic)}."
        )


def _check_hyperparameters(cell: Cell, where: str, spec: DatasetSpec) -> bool:
    """Refuse, by the file they stand in, hyper-parameters the rule does not take, and classes the data do not have.

    Returns:
        Whether one is a list, with a value for each plastic layer, whose number only a network can tell.
    """
    given, kind = cell.recipe.hyperparameters, registry.rule(cell.rule)
    lists = [len(value) for value in given.values() if isinstance(value, list)]
    for layer in range(max(lists, default=1)):
        here = {
            name: value[min(layer, len(value) - 1)] if isinstance(value, list) and value else value
            for name, value in given.items()
        }
        classes = getattr(kind.create(here, where), "classes", spec.classes)
        if classes != spec.classes:
            raise RuleError(
                f"{where}: rule '{cell.rule_name}' reckons with classes = {classes}, and {spec.name} has "
                f"{spec.classes}. Write hyperparameters: {{classes: {spec.classes}}} in its recipe for "
                f"'{cell.protocol.name}'."
            )
    return bool(lists)


def broken(cell: Cell, error: Exception) -> RuleError:
    """What is to be said of a rule that has raised: which it is, at which layer, what, and in which line of its file.

    Raises:
        Exception: the error itself, if the rule had no part in it.
    """
    owners = [frame.f_locals.get("self") for frame, _ in walk_tb(error.__traceback__)]
    layers = [owner.name for owner in owners if isinstance(owner, PlasticLayer)]
    place = place_in(error, registry.rule_path(cell.rule))
    if not layers and not place:
        raise error
    at = f" at layer '{layers[-1]}'" if layers else ""
    return RuleError(
        f"rule '{cell.rule_name}'{at}: {type(error).__name__}: {one_line(error).removesuffix('.')}{place}. "
        f"See what else: hebbbench check {cell.rule}"
    )
