"""What a learning rule is: typed hyper-parameters, the signals it may see, and one equation.

An equation has one of three shapes. Take the first that fits:

    delta   the direction of change of one layer's weight, written out
    loss    a layer-local objective, a scalar; the update is its steepest descent in that layer's weight alone
    step    a scalar for the whole network, after whatever phases the procedure needs; every layer descends it
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch
from pydantic import BaseModel, ConfigDict, PydanticUserError, ValidationError
from torch import Tensor

from hebbbench.errors import RuleError, one_line, suggestion
from hebbbench.plasticity.feedback import Path
from hebbbench.plasticity.signals import Pre
from hebbbench.validation import complaint

if TYPE_CHECKING:
    from hebbbench.plasticity.chain import Chain

Shape = Literal["delta", "loss", "step"]

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
"""Everything a `delta` or a `loss` may ask for. B = samples × positions, N = samples."""

STEP_SIGNALS = {
    "network": "the layers as a chain of blocks, and the read-out (hebbbench.Chain)",
    "input": "the network's input, (N, …) in the network's own shape",
    "labels": "class indices, (N,)",
    "state": "the rule's own tensors for the network, as `begin` made them; update them in place",
}
"""Everything a `step` may ask for."""


class Rule(BaseModel):
    """A learning rule: subclass it, declare hyper-parameters as fields, and write its equation.

        class Oja(Rule):
            def delta(self, pre: Pre, post: Tensor, weight: Tensor) -> Tensor:
                return hebb(post, pre) - decay(post * post, weight)

    The equation is one of `delta`, `loss` and `step` (see the module). Its parameter names are the signals the rule
    may see (`SIGNALS`, `STEP_SIGNALS`), and the harness passes only those. It must not change them, except `state`, in
    place. `delta` returns the direction of change, (out, in), positive = potentiation; the optimizer of the recipe
    takes the step. `loss` and `step` return a scalar, and the direction is down its slope. `feedback` names the path
    on which `grad` is carried back (see `hebbbench.plasticity.feedback`).

    An equation changes nothing but `state`. Without one it may be asked more than once a step, at first with stand-ins
    for tensors that note down what is done to them (see `plasticity/later.py`, `pieces.py`, and on a GPU `fused.py`).

    Raises:
        RuleError: at import, when there is no equation or more than one, or it asks for a signal that does not exist.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True)

    shape: ClassVar[Shape] = "delta"
    signals: ClassVar[tuple[str, ...]] = ()
    feedback: ClassVar[Path] = "exact"
    delta: ClassVar[Callable[..., Tensor]]
    loss: ClassVar[Callable[..., Tensor]]
    step: ClassVar[Callable[..., Tensor]]

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for name in cls.model_fields:
            if hasattr(Rule, name):
                value = f'"{cls.model_fields[name].default}"' if name == "feedback" else "…"
                raise RuleError(
                    f"rule {cls.__name__}: '{name}' is no hyper-parameter but a part of every rule. Write "
                    f"{name}: ClassVar = {value} if you mean that, or give the hyper-parameter another name."
                )
        written: list[Shape] = [
            shape for shape in get_args(Shape) if getattr(cls, shape, None) not in (None, _delta_of_loss)
        ]
        if len(written) != 1:
            found = " and ".join(written) or "none of them"
            raise RuleError(
                f"rule {cls.__name__} has one equation: delta(self, …) or loss(self, …) over {', '.join(SIGNALS)}, or "
                f"step(self, …) over {', '.join(STEP_SIGNALS)}. It defines {found}."
            )
        cls.shape = written[0]
        asked = tuple(inspect.signature(cls.equation()).parameters)[1:]
        known = STEP_SIGNALS if cls.shape == "step" else SIGNALS
        for signal in asked:
            if signal not in known:
                raise RuleError(
                    f"rule {cls.__name__}: {cls.shape} asks for the signal '{signal}', which does not exist. "
                    f"{suggestion(signal, known)}"
                )
        if cls.shape == "loss":
            cls.delta = _delta_of_loss
            asked = tuple(dict.fromkeys(("pre", "post", "weight", *asked)))
        cls.signals = asked
        if cls.feedback not in get_args(Path):
            raise RuleError(
                f"rule {cls.__name__}: there is no feedback path '{cls.feedback}'. "
                f"{suggestion(cls.feedback, get_args(Path))}"
            )

    def __setattr__(self, name: str, value: Any) -> None:
        raise RuleError(
            f"rule {type(self).__name__} sets self.{name}. A rule never changes; what it remembers belongs in `state`: "
            f'let init(self, weight) return {{"{name}": …}}, ask for `state`, and change that tensor in place.'
        )

    @classmethod
    def equation(cls) -> Callable[..., Tensor]:
        """The method that the rule's author wrote: `delta`, `loss` or `step`."""
        equation: Callable[..., Tensor] = getattr(cls, cls.shape)
        return equation

    def init(self, weight: Tensor) -> dict[str, Tensor]:
        """The rule's own tensors for a layer with this weight (out, in): traces, thresholds, win rates."""
        return {}

    def begin(self, network: Chain) -> dict[str, Tensor]:
        """A `step` rule's own tensors for the whole network: fixed projections, feedback weights, traces."""
        return {}

    def infer(self, network: Chain, input: Tensor) -> Tensor:
        """The features (N, …) that the read-out and the probe see; by default those of the forward pass.

        For `step` rules whose network answers by settling, not by one pass.
        """
        return network.forward(input)[-1]

    def constrain(self, weight: Tensor) -> Tensor:
        """The weight (out, in) as it may be after a step, such as `unit_norm(weight)`; by default as it is."""
        return weight

    @classmethod
    def end_to_end(cls) -> bool:
        """Whether training needs the task's loss: a gradient or an output error, and so a head and labels."""
        if cls.shape == "step":
            return "labels" in cls.signals
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
        except PydanticUserError as error:
            raise RuleError(
                f"rule {cls.__name__}: a hyper-parameter has a type that Python does not know: {one_line(error)}"
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            if first["loc"] and first["loc"][0] not in hyperparameters:
                where = f"the defaults in the rule's own file ({inspect.getfile(cls)})"
                if first["type"] == "missing":
                    raise RuleError(
                        f"{where}: rule {cls.__name__} has no value for its hyper-parameter '{first['loc'][0]}'. Give "
                        "it a default there, or a value in the recipe."
                    ) from error
            name = "".join(f".{part}" for part in first["loc"])
            value = f"{name} = {first['input']!r}" if name else ""
            raise RuleError(f"{where}: {cls.__name__}{value}{complaint(dict(first))}.") from error


def _delta_of_loss(self: Rule, pre: Pre, post: Tensor, weight: Tensor, **others: Any) -> Tensor:
    """Δw = −∂loss/∂w, which is −(∂loss/∂u)ᵀ x less what the loss draws from the weight itself, since u = w x.

    Only the loss is differentiated: the layer's own map is linear, so its share is one Hebbian outer product.
    """
    with torch.enable_grad():
        u, w = post.detach().requires_grad_(), weight.detach().requires_grad_()
        given = {"pre": pre, "post": u, "weight": w, **others}
        asked = tuple(inspect.signature(type(self).equation()).parameters)[1:]
        loss = self.loss(**{name: given[name] for name in asked})
        if not isinstance(loss, Tensor) or loss.dim() or not loss.requires_grad:
            raise RuleError(
                f"rule {type(self).__name__}: loss must return a scalar tensor that depends on `post` or `weight`."
            )
        to_u, to_w = torch.autograd.grad(loss, (u, w), allow_unused=True)
    slope = torch.zeros_like(weight) if to_w is None else to_w
    return -slope if to_u is None else -slope - pre.outer(to_u) * pre.count


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


def state_of(rule: Rule, method: str, state: Any) -> dict[str, Tensor]:
    """What a rule's method returned as its state.

    Raises:
        RuleError: it is no dictionary of tensors.
    """
    if not isinstance(state, dict):
        raise RuleError(f"rule {type(rule).__name__}: {method} returned {state!r}; it must return a dict of tensors.")
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise RuleError(
                f"rule {type(rule).__name__}: {method} returned {value!r} as '{name}'; state is tensors, which a "
                f"checkpoint keeps. Write torch.tensor({value!r})."
            )
    return state
