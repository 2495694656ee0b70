"""YAML in, validated data out: strict keys, and errors that name the key, the value and the nearest valid name."""

from __future__ import annotations

import hashlib
import json
import re
import types
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar, Union, cast, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from hebbbench.errors import ProtocolError, nearest, suggestion


class Strict(BaseModel):
    """Immutable data that refuses unknown keys and silent conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True)


WHOLE = {"whole": True}
"""The context of a dump that leaves nothing out."""


class Growing(Strict):
    """Data whose identity has been published. What is added later must not change it.

    So a field named in `later` is left out of every dump while it holds its default, unless the context is `WHOLE`.
    """

    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_later_defaults(
        self, handler: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        if info.context == WHOLE:
            return plain
        unset = {name for name in self.later if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in plain.items() if name not in unset}


Model = TypeVar("Model", bound=BaseModel)


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice (plain YAML silently keeps the last one)."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.composer.ComposerError(None, None, "a key is not plain text", key.start_mark)
            if key.value in seen:
                raise yaml.composer.ComposerError(None, None, f"the key '{key.value}' is given twice", key.start_mark)
            seen.add(key.value)
        return node


# YAML 1.1 reads "1e-3" as text; the field writes learning rates that way, so numbers follow YAML 1.2.
_UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)$"),
    list("-+.0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ProtocolError: the file cannot be read, is not YAML, repeats a key, or is not a mapping.
    """
    return _mapping(path, _text(path))


def read_model(model: type[Model], path: Path) -> Model:
    """A YAML file as a `model`; one object for as long as the file says the same, so the model must be immutable.

    Raises:
        ProtocolError: as `read_yaml` and `validate`.
    """
    return cast(Model, _model(model, path, _text(path)))


@lru_cache(maxsize=512)
def _model(model: type[BaseModel], path: Path, text: str) -> BaseModel:
    return validate(model, _mapping(path, text), str(path))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ProtocolError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise _not_yaml(path, error) from error


def _mapping(path: Path, text: str) -> dict[str, Any]:
    try:
        loaded = yaml.load(text, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise _not_yaml(path, error) from error
    if not isinstance(loaded, dict):
        raise ProtocolError(f"{path} must hold a mapping of keys to values, not {type(loaded).__name__}.")
    return loaded


def _not_yaml(path: Path, error: Exception) -> ProtocolError:
    return ProtocolError(f"{path} is not valid YAML: {' '.join(str(error).split())}.")


def parse_values(text: str) -> list[Any]:
    """Comma-separated values as YAML reads them: 0.01,1e-3,[1, 2],cosine.

    Raises:
        ProtocolError: the text is not YAML.
    """
    try:
        parsed = yaml.load(f"[{text}]", Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ProtocolError(f"'{text}' is not a list of values: {' '.join(str(error).split())}.") from error
    return list(parsed)


def validate(model: type[Model], data: Mapping[str, Any], where: str) -> Model:
    """`data` as a `model`.

    Args:
        where: the file or section named in the error.

    Raises:
        ProtocolError: naming every offending key with its value and, for an unknown key, the nearest valid one.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        told: dict[str, list[str]] = {}  # what fits no branch of a union is told by each of them
        for item in error.errors():
            subject, complained = _explain(model, dict(item))
            told.setdefault(subject, []).append(complained)
        lines = (subject + _together(complaints) for subject, complaints in told.items())
        raise ProtocolError(f"{where}: " + "; ".join(lines)) from error


KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "string": "text",
    "bool": "true or false",
    "list": "a list",
    "dict": "a section of keys and values",
    "model": "a section of keys and values",
}
"""What the types of pydantic's errors begin with, and what a person calls these kinds of values."""

BOUNDS = {"gt": "greater than {}", "ge": "{} or more", "lt": "less than {}", "le": "{} or less"}
MUST = " must be "
FORMS: dict[str, str] = {}
"""What texts of a pattern look like, in words."""


def form(pattern: str, words: str) -> Any:
    """A field of text that has this pattern; an error says so in these words, behind "must be"."""
    FORMS[pattern] = words
    return Field(pattern=pattern)


def complaint(item: Mapping[str, Any]) -> str:
    """What is wrong with a value, as the end of a sentence that begins with it.

    Args:
        item: an error as pydantic reports it.
    """
    kind, context = item["type"], item.get("ctx", {})
    for bound, words in BOUNDS.items():
        if bound in context:
            return MUST + words.format(f"{context[bound]:g}")
    if kind == "literal_error":
        names = re.findall(r"'([^']*)'", context["expected"]) or [context["expected"]]
        near = nearest(str(item["input"]), names)
        return MUST + _either(names) + (f" (did you mean '{near}'?)" if near is not None else "")
    if kind == "too_short":
        return f" needs {context['min_length']} or more entries"
    if kind == "string_pattern_mismatch":
        return MUST + FORMS.get(context["pattern"], f"of the form {context['pattern']}")
    name, _, rest = kind.partition("_")
    if name in KINDS and rest.rpartition("_")[2] in ("type", "parsing", "from", "number"):
        return MUST + KINDS[name]
    message = str(item["msg"]).removeprefix("Value error, ")
    return f": {message}" if kind == "value_error" else f": {message[0].lower()}{message[1:]}"


def _together(complaints: Sequence[str]) -> str:
    """The complaints of a union's branches about one value as one."""
    told = dict.fromkeys(complaints)
    if MUST + KINDS["float"] in told:
        told.pop(MUST + KINDS["int"], None)
    first, *others = told
    if others and all(one.startswith(MUST) for one in (first, *others)):
        return MUST + _either([one.removeprefix(MUST) for one in (first, *others)])
    return ", or".join([first, *(one.removeprefix(":") for one in others)])


def _either(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _explain(model: type[BaseModel], item: dict[str, Any]) -> tuple[str, str]:
    """What an error is about, and what is wrong with it."""
    location = [part for part in item["loc"] if not _is_union_tag(part)]
    path = ".".join(str(part) for part in location) or "(top level)"
    if item["type"] == "extra_forbidden":
        parent = ".".join(str(part) for part in location[:-1])
        inside = f" in '{parent}'" if parent else ""
        keys = suggestion(str(location[-1]), _keys_at(model, location[:-1]))
        return f"unknown key '{location[-1]}'{inside}. {keys}", ""
    if item["type"] == "missing":
        return f"the key '{path}' is missing", ""
    if item["type"] == "value_error":
        return (path, complaint(item)) if location else ("", complaint(item).removeprefix(": "))
    return f"{path} = {item['input']!r}", complaint(item)


UNION_TAGS = frozenset({"int", "float", "bool", "str"})


def _is_union_tag(part: Any) -> bool:
    """Pydantic puts the name of a union's branch into an error's location; a person did not write it."""
    return isinstance(part, str) and (part.endswith("]") or part.startswith("constrained-") or part in UNION_TAGS)


def _keys_at(model: type[BaseModel], location: list[Any]) -> list[str]:
    """The keys allowed at `location`, followed through nested models."""
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(str(part))
            if field is None:
                return []
            current = field.annotation
        elif get_origin(current) is dict:
            current = get_args(current)[1]
        candidates = _models_in(current)
        if candidates and get_origin(current) is not dict:
            current = candidates[0]
    return list(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else []


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return [annotation] if issubclass(annotation, BaseModel) else []
    if get_origin(annotation) in (Union, types.UnionType, list, tuple, dict):
        return [found for inner in get_args(annotation) for found in _models_in(inner)]
    return []


def canonical_json(value: Any) -> str:
    """The one text of a JSON value: sorted keys, no spaces, shortest float text, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def differences(old: Any, new: Any, where: str = "") -> list[tuple[str, str, str]]:
    """Where two JSON values differ, as their digests do: (dotted path, old text, new text), by key."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = ((old.get(key), new.get(key), f"{where}.{key}".lstrip(".")) for key in sorted({*old, *new}))
        return [change for part in parts for change in differences(*part)]
    texts = canonical_json(old), canonical_json(new)
    return [] if texts[0] == texts[1] else [(where, *texts)]


def digest(value: Any) -> str:
    """SHA-256 of a JSON value's canonical text."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
