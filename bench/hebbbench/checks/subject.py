"""The rule under check, and how a check says no."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from hebbbench import registry
from hebbbench.checks.probes import Evidence, measure
from hebbbench.errors import RuleError
from hebbbench.plasticity.rule import Rule


class Failed(Exception):
    """A check's finding: what is wrong, with the value, and what to do about it."""


class Skipped(Exception):
    """A check does not apply; the reason why."""


@dataclass
class Subject:
    """One rule, by registered name or by the path of its file."""

    rule: str

    @cached_property
    def path(self) -> Path:
        """Its file."""
        return registry.rule_path(self.rule)

    @cached_property
    def kind(self) -> type[Rule]:
        """Its class."""
        return registry.rule(self.rule)

    @cached_property
    def module(self) -> ModuleType:
        """The module that defines it."""
        module = inspect.getmodule(self.kind)
        if module is None:
            raise RuleError(f"{self.path} is no module.")
        return module

    @cached_property
    def evidence(self) -> Evidence:
        """What the probes saw."""
        return measure(self.rule)

    def need_layer_update(self) -> None:
        """Skip a check that looks at one layer's update where the rule has none.

        Raises:
            Skipped: the rule is a whole-network procedure.
        """
        if self.kind.shape == "step":
            raise Skipped("a procedure for the whole network has no update of one layer alone")

    def build(self, hyperparameters: dict[str, Any] | None = None) -> Rule:
        """The rule with these hyper-parameters, the rest at their defaults.

        Raises:
            RuleError: a value is refused.
        """
        return self.kind.create(hyperparameters or {}, "check")
