"""YAML in, validated data out: strict keys, and errors that name the key, the value and the nearest valid name."""

from __future__ import annotations

import hashlib
import json
import re
import types
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar, Union, cast, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from hebbbench.errors import ProtocolError, suggestion


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
    except yaml.YAMLError as error:
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
        complaints: dict[str, list[str]] = {}
        for item in error.errors():
            line = _explain(model, dict(item))
            value, _, complaint = line.partition(": ")
            if " = " not in value:
                value, complaint = line, ""
            complaints.setdefault(value, []).append(complaint)  # what fits no branch of a union is told by each
        lines = (value + (_together(told) if any(told) else "") for value, told in complaints.items())
        raise ProtocolError(f"{where}: " + "; ".join(lines)) from error


KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "list": "a list",
    "dictionary": "a section",
}
"""What pydantic calls the kinds of values, and what a person does."""


def _together(complaints: list[str]) -> str:
    """The complaints of a union's branches about one value, as the end of a sentence that begins with the value."""
    kinds = [KINDS.get(complaint.removeprefix("input should be a valid ")) for complaint in complaints]
    if None in kinds:
        return f": {', or '.join(complaints)}"
    *others, last = (kind for kind in kinds if kind is not None)
    return f" must be {', '.join(others)}{' or ' if others else ''}{last}"


def _explain(model: type[BaseModel], item: dict[str, Any]) -> str:
    location = [part for part in item["loc"] if not _is_union_tag(part)]
    path = ".".join(str(part) for part in location) or "(top level)"
    if item["type"] == "extra_forbidden":
        parent = ".".join(str(part) for part in location[:-1])
        inside = f" in '{parent}'" if parent else ""
        return f"unknown key '{location[-1]}'{inside}. {suggestion(str(location[-1]), _keys_at(model, location[:-1]))}"
    if item["type"] == "missing":
        return f"the key '{path}' is missing"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{path}: {message}" if location else message
    return f"{path} = {item['input']!r}: {message[0].lower()}{message[1:]}"


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


def digest(value: Any) -> str:
    """SHA-256 of a JSON value's canonical text."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
