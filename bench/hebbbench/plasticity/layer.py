"""One plastic layer: what it holds of its own traffic, and how its rule is asked for an update.

What a rule makes of activity before it needs the gradient is made in the forward pass (see `later`), so activity is
held no longer than the rule needs it. The update goes to `weight.grad` as −Δw, and an ordinary `torch.optim` optimizer
takes the step.
"""

from __future__ import annotations

import reprlib
from typing import Any

import torch
from torch import Tensor, nn

from hebbbench.errors import RuleError
from hebbbench.kernels import in_use
from hebbbench.kernels.rows import WIDEST, Changed
from hebbbench.plasticity.divided import SharedPre, WholePre
from hebbbench.plasticity.fused import Fused, fused_potential, rows_of
from hebbbench.plasticity.later import Later
from hebbbench.plasticity.pieces import Rows, potential
from hebbbench.plasticity.rule import Rule, state_of
from hebbbench.plasticity.signals import Pre, check_layer, post_rows, pre_of, weight_like, weight_rows
from hebbbench.world import ALONE, World, shown_shares

BRIEF = reprlib.Repr()
BRIEF.maxlevel = 1

DIRECTION = "the direction of change"
OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)


class PlasticLayer:
    """One layer, its rule and the rule's own tensors.

    Args:
        world: which processes a batch is divided over; whole: whether the rule is shown all processes' rows.
        products: precision of the rule's outer product; that of the layer's own if None.
    """

    def __init__(
        self,
        name: str,
        module: nn.Linear | nn.Conv2d,
        rule: Rule,
        world: World = ALONE,
        whole: bool = False,
        products: torch.dtype | None = None,
    ) -> None:
        check_layer(name, module)
        self.name = name
        self.module = module
        self.rule = rule
        self.title = type(rule).__name__
        self.world = world
        self.whole = whole
        self.products = products
        self.state = state_of(rule, "init", rule.init(weight_rows(module.weight.detach())))
        self._pre: Pre | None = None
        self._post: Tensor | Rows | None = None
        self._held: list[tuple[Tensor, int]] = []
        self._observed = False
        self._begun: Later | Tensor | None = None
        asked = rule.signals
        # State may change as the equation runs, so a rule that has one is asked once, when all is there.
        self._begins_early = "grad" in asked and "state" not in asked and bool({"pre", "post"} & set(asked))
        # In pieces memory is saved and some work done twice: worth it where activity is held for a backward pass.
        self._in_pieces = self._begins_early and world.size == 1
        # On a GPU by kernels made for its equation, if it can be noted down before it is computed.
        self._fused = "state" not in asked and world.size == 1

    @property
    def weight(self) -> Tensor:
        """w, rows (out, in)."""
        return weight_rows(self.module.weight.detach())

    def observe(self, x: Tensor, output: Tensor) -> None:
        """Take in one forward pass of the layer, and hold what the rule asked for."""
        if self._observed:
            raise RuleError(
                f"layer '{self.name}' ran twice in one step; a rule would see only one of its inputs. "
                "Leave shared layers out of the protocol's plastic layers."
            )
        self._observed = True
        if "pre" in self.rule.signals:
            self._pre = self._seen(pre_of(self._hold(x), output, self.module, self.products))
        if "post" in self.rule.signals:
            held = self._hold(output)
            if self._fused and in_use(held.device):
                self._post = fused_potential(held, self.module)
                if self._post is not None:
                    return
            if self._in_pieces and held.dtype != self.module.weight.dtype and held.device.type == "cpu":
                self._post = potential(held, self.module)
                return
            self._post = post_rows(held, self.module)
            if self.whole:
                self._post = self.world.rows(self._post)

    def _seen(self, pre: Pre) -> Pre:
        if self.world.share is None:
            return pre
        return WholePre(pre, self.world) if self.whole else SharedPre(pre, self.world)

    def _hold(self, activity: Tensor) -> Tensor:
        activity = activity.detach()
        self._held.append((activity, activity._version))
        return activity

    @torch.no_grad()
    def begin(self, **outside: Tensor) -> None:
        """Run the rule's equation as far as it needs no gradient, and let go of the activity if that was possible."""
        if not self._begins_early:
            return
        try:
            begun = self._ask({**outside, "grad": Later()})
            noted = begun.values() if isinstance(begun, Later) else [begun]
            if any(isinstance(value, Fused) and value.changed() for value in noted):
                raise Changed
        except OUT_OF_MEMORY:
            raise
        except Exception:  # whatever fails for want of the gradient is asked again when it is there
            if isinstance(self._post, Rows):  # or for want of the whole potential: then with that, first
                self._show_whole()
                self.begin(**outside)
                return
            self._begins_early = False
        else:
            self._let_go()
            self._begun = begun

    def _show_whole(self) -> None:
        """From now on the rule is shown tensors."""
        self._in_pieces = self._fused = False
        if isinstance(self._post, Rows):
            self._post = self._post.whole()

    def _ask(self, others: dict[str, Any]) -> Any:
        signals: dict[str, Any] = {"pre": self._pre, "post": self._post, "weight": self.weight, "state": self.state}
        signals |= others
        shares = ALONE if self.whole else self.world
        shown = {name: signals[name] for name in self.rule.signals}
        versions = {name: one._version for name, one in shown.items() if isinstance(one, Tensor)}
        with torch.autocast(self.module.weight.device.type, enabled=False), shown_shares(shares):
            try:
                delta = self.rule.delta(**shown)
            except SystemExit as error:
                raise RuleError(
                    f"rule {self.title} at layer '{self.name}': delta calls sys.exit({error.code})."
                ) from error
        for name, version in versions.items():
            if shown[name]._version != version:
                raise RuleError(
                    f"rule {self.title} at layer '{self.name}': delta writes to its {name}, which others read, "
                    f"too. Work on a copy: {name}.clone()."
                )
        return delta

    @torch.no_grad()
    def learn(self, **late: Tensor) -> None:
        """Ask the rule for its update and leave it, negated, in `weight.grad`.

        Args:
            late: signals from outside the layer: grad in the weight's own shape, error, labels, input.
        """
        if any(activity._version != version for activity, version in self._held):
            raise RuleError(
                f"the activity of layer '{self.name}' was overwritten in place before its rule had seen it. Write "
                "what follows it in the architecture without the in-place form, or leave the layer out of `plastic`."
            )
        if "grad" in late:
            late["grad"] = weight_rows(late["grad"])
        descent = self._by_kernels(late)
        if descent is None:
            # In the order of the weights: on a GPU one pass goes over both.
            descent = self._like_weight("delta", self._written(late), DIRECTION).neg().contiguous()
        self._let_go()
        self.module.weight.grad = weight_like(descent, self.module.weight)

    def _by_kernels(self, late: dict[str, Tensor]) -> Tensor | None:
        """−Δw by kernels made for the rule's equation, (out, in); None if they are not for it."""
        if not (self._fused and in_use(self.module.weight.device)):
            return None
        shown: dict[str, Any] = dict(late)
        if "grad" in late and late["grad"].shape[1] <= WIDEST and late["grad"].dtype == torch.float32:
            shown["grad"] = rows_of(late["grad"])
        try:
            delta = self._ask(shown) if self._begun is None else self._begun
            if isinstance(delta, Later):
                delta = delta.given(shown["grad"])
            if isinstance(delta, Fused) and delta.shape == self.weight.shape:
                return delta.negative().whole()
            return self._like_weight("delta", delta, DIRECTION).neg().contiguous()
        except OUT_OF_MEMORY:
            raise
        except Exception:  # whatever fails for want of a tensor is asked again with tensors
            self._show_whole()
            return None

    def _written(self, late: dict[str, Tensor]) -> Any:
        """What the rule's equation comes to, as a tensor."""
        delta = self._ask(late) if self._begun is None else self._begun
        if isinstance(delta, Later):
            with torch.autocast(self.module.weight.device.type, enabled=False):
                delta = delta.given(late["grad"])
        return delta.whole() if isinstance(delta, Rows) else delta

    def constrained(self) -> Tensor:
        """The weight as its rule would have it, rows (out, in)."""
        return self._like_weight("constrain", self.rule.constrain(self.weight), "the weight as it is to be")

    def _like_weight(self, method: str, value: Any, what: str) -> Tensor:
        """What a method of the rule returned, if it has the shape of the weight's rows, and their precision."""
        expected, precision = self.weight.shape, self.weight.dtype
        if isinstance(value, Tensor) and value.shape == expected:
            if value.dtype == precision:
                return value
            raise RuleError(
                f"rule {self.title} at layer '{self.name}': {method} returned {value.dtype}, and the weight is "
                f"{precision}. Write .to(weight.dtype) behind what it returns."
            )
        found = f"has shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"returned {BRIEF.repr(value)}"
        raise RuleError(
            f"rule {self.title} at layer '{self.name}': {method} {found}; it must return {what}, a tensor of the shape "
            f"of the weight's rows, {tuple(expected)} (out, in)."
        )

    def forget(self) -> None:
        """Be ready for the next pass."""
        self._let_go()
        self._observed = False

    def _let_go(self) -> None:
        self._pre = self._post = self._begun = None
        self._held = []
