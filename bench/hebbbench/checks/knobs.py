"""Checks of hyper-parameters: each one acts, and no value that makes no sense is taken."""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import Enum
from itertools import islice
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic_core import PydanticUndefined

from hebbbench.checks.rig import Played, Rig, differs
from hebbbench.checks.subject import Failed, Skipped, Subject
from hebbbench.errors import RuleError

CONTEXTS = 24
"""Settings of the other hyper-parameters tried before one is called a phantom."""


def defaults(subject: Subject) -> str:
    """Every hyper-parameter has a type and a default."""
    fields = subject.kind.model_fields
    if not fields:
        raise Skipped("it has none")
    for name, field in fields.items():
        if field.default is PydanticUndefined and field.default_factory is None:
            raise Failed(f"hyper-parameter '{name}' has no default. Give the paper's value.")
        if field.annotation is Any:
            raise Failed(f"hyper-parameter '{name}' is typed Any. Give its type, such as PositiveFloat.")
    return ", ".join(f"{name} = {field.get_default(call_default_factory=True)!r}" for name, field in fields.items())


def every_knob(subject: Subject) -> str:
    """Each hyper-parameter, changed alone, changes an update within three steps in some setting of the others."""
    fields = subject.kind.model_fields
    if not fields:
        raise Skipped("it has none")
    tried: dict[str, Played | None] = {}

    def play(setting: dict[str, Any]) -> Played | None:
        key = repr(sorted(setting.items()))
        if key not in tried:
            tried[key] = _played(subject, setting)
        return tried[key]

    phantoms = []
    for name in fields:
        values = [value for value in alternatives(subject, name) if _accepted(subject, {name: value})]
        if not values:
            raise Failed(f"no second value of '{name}' is accepted; it is a constant. Write it into the equation.")
        if not any(
            _tell_apart(play(context), play({**context, name: value}))
            for context in islice(_contexts(subject, name), CONTEXTS)
            for value in values[:3]
            if _accepted(subject, {**context, name: value})
        ):
            phantoms.append(f"'{name}' (tried {', '.join(repr(value) for value in values[:3])})")
    if phantoms:
        raise Failed(f"changing {' and '.join(phantoms)} changes no update. Remove the phantom knob, or use it.")
    return f"{len(fields)} of {len(fields)} act"


def bad_values(subject: Subject) -> str:
    """Values of the wrong kind are refused; numbers that are taken give finite updates."""
    fields = subject.kind.model_fields
    if not fields:
        raise Skipped("it has none")
    for name, field in fields.items():
        types = _types(field.annotation)
        for value in _nonsense(types):
            if _accepted(subject, {name: value}):
                raise Failed(
                    f"{name} = {value!r} is accepted. Give '{name}' a strict type, such as PositiveFloat or Literal[…]."
                )
        if not types & {int, float} or bool in types:
            continue
        for value in _edges(subject, name, types):
            if not _accepted(subject, {name: value}):
                continue
            played = _played(subject, {name: value})
            calls, passes = ([], []) if played is None else (played.calls, played.changes)
            updates = [*(call.delta for call in calls), *(change for changes in passes for change in changes)]
            if not all(update.isfinite().all() for update in updates):
                raise Failed(
                    f"{name} = {value!r} is accepted and gives updates that are not finite. Bound '{name}', as with "
                    "PositiveFloat or Annotated[float, Field(gt=0, le=1)]."
                )
    try:
        subject.build({"no_such_knob": 1})
    except RuleError:
        return ""
    raise Failed("an unknown hyper-parameter is accepted. Leave model_config as the base class has it.")


def alternatives(subject: Subject, name: str) -> Iterator[Any]:
    """Other values of a hyper-parameter than its default, nearest in kind first."""
    field = subject.kind.model_fields[name]
    default = field.get_default(call_default_factory=True)
    yield from (value for value in _others(default, field.annotation) if value != default or value is not default)


def _others(default: Any, annotation: Any) -> Iterator[Any]:
    choices = _choices(annotation)
    if choices:
        yield from (choice for choice in choices if choice != default)
    elif isinstance(default, bool):
        yield not default
    elif isinstance(default, int):
        yield from (default + 1, default - 1, 2 * default, default + 3)
    elif isinstance(default, float):
        yield from (1.7 * default, 0.4 * default, 0.5 * (1 + default), default + 0.5, default - 0.5, 0.5)
    elif isinstance(default, list | tuple):
        for index, item in enumerate(default):
            for other in islice(_others(item, type(item)), 2):
                yield type(default)([*default[:index], other, *default[index + 1 :]])
    elif default is None:
        yield from (0.5, 2, 1, True, "mean")


def _choices(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _choices(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return list(annotation)
    return [choice for inner in get_args(annotation) for choice in _choices(inner)]


def _contexts(subject: Subject, name: str) -> Iterator[dict[str, Any]]:
    """Settings of the other hyper-parameters: all defaults, then each at another value, flags and choices first."""
    yield {}
    others = [other for other in subject.kind.model_fields if other != name]
    others.sort(key=lambda other: isinstance(subject.kind.model_fields[other].default, float | int)
                and not isinstance(subject.kind.model_fields[other].default, bool))  # fmt: skip
    for other in others:
        for value in alternatives(subject, other):
            if _accepted(subject, {other: value}):
                yield {other: value}


def _accepted(subject: Subject, setting: dict[str, Any]) -> bool:
    try:
        subject.build(setting)
    except RuleError:
        return False
    return True


def _played(subject: Subject, setting: dict[str, Any]) -> Played | None:
    """Three steps with this setting; None if the rule refuses it once it sees the layers.

    A rule that sees errors meets three more, in which they come and go.
    """
    try:
        rig = Rig(subject.rule, setting)
        scene = rig.scene(passes=3)
        played = rig.play(scene)
        if subject.kind.end_to_end():
            played.changes += rig.play(rig.certain(scene, played, wrong=[0, 4, 2])).changes
        return played
    except RuleError:
        return None


def _tell_apart(one: Played | None, two: Played | None) -> bool:
    if one is None or two is None:
        return False
    return any(differs(a, b) for x, y in zip(one.changes, two.changes, strict=True) for a, b in zip(x, y, strict=True))


def _types(annotation: Any) -> set[type]:
    """The plain types an annotation allows."""
    if get_origin(annotation) is Annotated:
        return _types(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return {type(choice) for choice in get_args(annotation)}
    if get_origin(annotation) in (list, tuple, dict):
        return {get_origin(annotation)}
    if get_args(annotation):
        return {found for inner in get_args(annotation) for found in _types(inner)}
    return {annotation} if isinstance(annotation, type) else set()


def _nonsense(types: set[type]) -> Iterator[Any]:
    """Values that no such hyper-parameter can mean."""
    yield from (math.nan, math.inf, -math.inf)
    yield "no such value"
    if NoneType not in types:
        yield None
    if not types & {list, tuple, dict}:
        yield {}
    if bool in types and not types & {int, float}:
        yield 1


def _edges(subject: Subject, name: str, types: set[type]) -> Iterator[float | int]:
    """Zero, the default's opposite, and ten times the default."""
    default = subject.kind.model_fields[name].get_default(call_default_factory=True)
    number = default if isinstance(default, int | float) else 1
    for value in (0, -abs(number) or -1, 10 * number):
        yield float(value) if float in types else int(value)
