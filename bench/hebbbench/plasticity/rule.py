"""What a learning rule is: typed hyper-parameters, the signals it may see, and one equation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from hebbbench.errors import RuleError, suggestion
from hebbbench.plasticity.feedback import Path

SIGNALS = {
    "pre": "presynaptic activity x, rows (B, in); lazy for convolutions",
    "post": "potential u = w x before the nonlinearity, (B, out)",
    "weight": "w, (out, in); row k belongs to unit k",
    "grad": "∂L/∂w carried by the rule's feedback path, (out, in)",
    "state": "the rule's own tensors for this layer, as `init` made them; update them in place",
    "error": "output error, softmax(logits) − one-hot(labels), (N, classes)",
    "labels": "class indices, (N,)",
    "input": "the network's input, rows (N, features)",
}
"""Everything a `delta` may ask for. B = samples × positions, N = samples."""


class Rule(BaseModel):
    """A learning rule: subclass it, declare hyper-parameters as fields, and write `delta`.

        class Oja(Rule):
            def delta(self, pre: Pre, post: Tensor, weight: Tensor) -> Tensor:
                return hebb(post, pre) - decay(post * post, weight)

    The parameter names of `delta` are the signals the rule may see (`SIGNALS`), and the harness passes only
    those. `delta` returns the direction of change, shape (out, in), positive = potentiation; the optimizer of
    the recipe takes the step. It must not change its inputs, except `state`, in place. `feedback` names the path on
    which `grad` is carried back (see `hebbbench.plasticity.feedback`).

    Raises:
        RuleError: at import, when `delta` is missing or asks for a signal that does not exist.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True)

    signals: ClassVar[tuple[str, ...]] = ()
    feedback: ClassVar[Path] = "exact"
    delta: ClassVar[Callable[..., Tensor]]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        equation = getattr(cls, "delta", None)
        if equation is None:
            raise RuleError(f"rule {cls.__name__} has no equation: define delta(self, …) over {', '.join(SIGNALS)}.")
        cls.signals = tuple(inspect.signature(equation).parameters)[1:]
        for signal in cls.signals:
            if signal not in SIGNALS:
                raise RuleError(
                    f"rule {cls.__name__}: delta asks for the signal '{signal}', which does not exist. "
                    f"{suggestion(signal, SIGNALS)}"
                )
        if cls.feedback not in get_args(Path):
            raise RuleError(
                f"rule {cls.__name__}: there is no feedback path '{cls.feedback}'. "
                f"{suggestion(cls.feedback, get_args(Path))}"
            )

    def init(self, weight: Tensor) -> dict[str, Tensor]:
        """The rule's own tensors for a layer with this weight (out, in): traces, thresholds, win rates."""
        return {}

    def constrain(self, weight: Tensor) -> Tensor:
        """The weight (out, in) as it may be after a step, such as `unit_norm(weight)`; by default as it is."""
        return weight

    @classmethod
    def end_to_end(cls) -> bool:
        """Whether training needs the task's loss: a gradient or an output error, and so a head and labels."""
        return "grad" in cls.signals or "error" in cls.signals

    @classmethod
    def create(cls, hyperparameters: dict[str, Any], where: str) -> Rule:
        """The rule with these hyper-parameters.

        Raises:
            RuleError: a hyper-parameter is unknown or has a value it cannot take.
        """
        for name in hyperparameters:
            if name not in cls.model_fields:
                raise RuleError(
                    f"{where}: rule {cls.__name__} has no hyper-parameter '{name}'. "
                    f"{suggestion(name, cls.model_fields)}"
                )
        try:
            return cls(**hyperparameters)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise RuleError(f"{where}: {cls.__name__}.{name} = {first['input']!r}: {first['msg'].lower()}.") from error


def per_layer(rule: type[Rule], hyperparameters: dict[str, Any], layers: list[str]) -> list[Rule]:
    """One rule a layer. A hyper-parameter given as a list holds one value for each of `layers`, in order.

    Raises:
        RuleError: a list's length is not the number of layers, or a value is wrong.
    """
    for name, value in hyperparameters.items():
        if isinstance(value, list) and len(value) != len(layers):
            raise RuleError(
                f"hyper-parameter {name} = {value} has {len(value)} values for {len(layers)} plastic layers "
                f"({', '.join(layers)}). Give one value, or one a layer."
            )
    return [
        rule.create(
            {name: value[i] if isinstance(value, list) else value for name, value in hyperparameters.items()}, layer
        )
        for i, layer in enumerate(layers)
    ]
