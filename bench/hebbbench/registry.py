"""Finds rules, architectures and protocols by file name, by path, or by entry point.

One name everywhere: file stem = command-line argument = JSON key = row on the board. Nothing here imports
torch; a rule's or architecture's module is imported only when its class is asked for.

A package outside this repository adds its own by an entry point in the group `hebbbench.rules`,
`hebbbench.architectures` or `hebbbench.protocols` that names a package with such files.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic.errors import PydanticUserError

from hebbbench.errors import HebbBenchError, ProtocolError, RuleError, suggestion, unknown_name
from hebbbench.fingerprint import code_hash
from hebbbench.protocol import Protocol, load_protocol
from hebbbench.recipe import Recipe, load_recipes
from hebbbench.validation import read_yaml

if TYPE_CHECKING:
    from torch import nn

    from hebbbench.plasticity.rule import Rule

SUFFIX = {"rules": ".py", "architectures": ".py", "protocols": ".yaml"}


def _packages(kind: str) -> list[str]:
    return [f"hebbbench.{kind}", *sorted(point.value for point in entry_points(group=f"hebbbench.{kind}"))]


@cache
def _files(kind: str) -> Mapping[str, tuple[str, Path]]:
    """name → (package, file) of everything of one kind.

    Raises:
        HebbBenchError: two packages use one name.
    """
    found: dict[str, tuple[str, Path]] = {}
    for package in _packages(kind):
        try:
            folder = files(package)
        except ModuleNotFoundError as error:
            raise HebbBenchError(
                f"the entry point group hebbbench.{kind} names '{package}', which cannot be imported: {error}."
            ) from error
        for entry in folder.iterdir():
            path = Path(str(entry))
            if path.suffix != SUFFIX[kind] or path.stem.startswith("_"):
                continue
            if path.stem in found:
                raise HebbBenchError(
                    f"the name '{path.stem}' is taken twice among {kind}: by {found[path.stem][1]} and by {path}. "
                    "Rename one."
                )
            found[path.stem] = (package, path)
    return found


def _names(kind: str) -> list[str]:
    return sorted(_files(kind))


def protocol_names() -> list[str]:
    """Every protocol's name, sorted."""
    return _names("protocols")


def rule_names() -> list[str]:
    """Every rule's name, sorted."""
    return _names("rules")


def architecture_names() -> list[str]:
    """Every architecture's name, sorted."""
    return _names("architectures")


def protocol(name: str) -> Protocol:
    """The protocol of that name, or in the YAML file at that path.

    Raises:
        UnknownNameError: there is none.
        ProtocolError: its file is not a valid protocol, or has the name of one in the registry.
    """
    known = _files("protocols")
    if name.endswith((".yaml", ".yml")):
        found, path = load_protocol(Path(name)), Path(name)
        if found.name in known and not path.samefile(known[found.name][1]):
            raise ProtocolError(
                f"the name '{found.name}' of {name} belongs to {known[found.name][1]}, and the results of both would "
                "lie in one place. Rename the file and the protocol."
            )
        varied = [(f"axes.{axis}.rules", values.rules) for axis, values in found.axes.items()]
        for key, names in (("rules", found.rules), ("controls", found.controls), *varied):
            for rule in names:
                if rule not in _files("rules"):
                    raise ProtocolError(
                        f"{path}: {key}: there is no rule '{rule}'. {suggestion(rule, _files('rules'))}"
                    )
        return found
    if name not in known:
        raise unknown_name("protocol", name, known, "Or give the path of a .yaml file.")
    return load_protocol(known[name][1])


def holds_rules(folder: Path) -> bool:
    """Whether every Python file in this folder is a rule of the registry."""
    return folder.resolve() in {path.resolve().parent for _, path in _files("rules").values()}


def rule_path(name: str) -> Path:
    """The file of a rule given by name or by path.

    Raises:
        UnknownNameError: there is none of that name.
        RuleError: the path is no file, or its stem is the name of a rule in the registry.
    """
    return _path("rules", "rule", name, RuleError)


def architecture_path(name: str) -> Path:
    """The file of an architecture given by name or by path.

    Raises:
        UnknownNameError: there is none of that name.
        ProtocolError: the path is no file, or its stem is the name of an architecture in the registry.
    """
    return _path("architectures", "architecture", name, ProtocolError)


def _path(kind: str, singular: str, name: str, failure: type[HebbBenchError]) -> Path:
    known = _files(kind)
    if not name.endswith(".py"):
        if name not in known:
            raise unknown_name(singular, name, known, "Or give the path of a .py file.")
        return known[name][1]
    path = Path(name).resolve()
    if not path.is_file():
        article = "an" if singular[0] in "aeiou" else "a"
        raise failure(
            f"there is no {singular} file {name} here: {path} is none. Give its path, or {article} {singular}'s name."
        )
    if path.stem in known and not path.samefile(known[path.stem][1]):
        raise failure(f"the name '{path.stem}' of {name} belongs to {known[path.stem][1]}. Rename your file.")
    return path


def rule(name: str) -> type[Rule]:
    """The rule class of that name, or in the Python file at that path.

    Raises:
        RuleError: the file cannot be imported, or does not define exactly one rule.
    """
    from hebbbench.plasticity.rule import Rule

    return _only_class(_import("rules", rule_path(name), RuleError), Rule, "rule", RuleError)


def architecture(name: str) -> type[nn.Module]:
    """The architecture class of that name, or in the Python file at that path.

    Raises:
        UnknownNameError: there is none.
        ProtocolError: the file cannot be imported, or does not define exactly one architecture.
    """
    from torch import nn

    module = _import("architectures", architecture_path(name), ProtocolError)
    return _only_class(module, nn.Module, "architecture", ProtocolError, mark="layout")


_texts: dict[Path, str] = {}
"""What each imported file said: a file edited since, in a notebook say, is imported anew."""


def _import(kind: str, path: Path, failure: type[HebbBenchError]) -> ModuleType:
    entry = _files(kind).get(path.stem)
    try:
        text = path.read_text(encoding="utf-8")
        edited = _texts.get(path, text) != text
        _texts[path] = text
        if entry is not None and entry[1] == path:
            module = importlib.import_module(f"{entry[0]}.{path.stem}")
            return importlib.reload(module) if edited else module
        module_name = f"hebbbench_outside.{kind}.{path.stem}"
        loaded = sys.modules.get(module_name)
        if loaded is not None and loaded.__file__ == str(path) and not edited:
            return loaded
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise failure(f"{path} cannot be imported.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            with warnings.catch_warnings():  # a field with the name of a rule's part is refused in words of our own
                warnings.filterwarnings("ignore", message="Field name .* shadows an attribute")
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[module_name]
            raise
        return module
    except HebbBenchError:
        raise
    except SystemExit as error:
        raise failure(f"{path} cannot be imported: it calls sys.exit({error.code}).") from error
    except PydanticUserError as error:
        raise failure(f"{path} cannot be imported: {_untyped(error)}") from error
    except Exception as error:
        raise failure(f"{path} cannot be imported: {type(error).__name__}: {error}") from error


def _untyped(error: PydanticUserError) -> str:
    """What pydantic has against a class's fields; of one without a type, how to write it."""
    found = re.search(r"non-annotated attribute was detected: `(\w+) = (.*?)`\.", error.message)
    if found is None:
        return error.message
    name, value = found.groups()
    try:
        kind = type(ast.literal_eval(value)).__name__
    except (ValueError, SyntaxError):
        kind = "TYPE"
    return (
        f"the field `{name} = {value}` has no type. Write {name}: {kind} = {value} for a hyper-parameter, and "
        f"{name}: ClassVar = {value} for what is none."
    )


def _only_class(
    module: ModuleType, base: type[Any], kind: str, failure: type[HebbBenchError], mark: str = "__doc__"
) -> type[Any]:
    """The one public subclass of `base` that the module itself defines and that has the attribute `mark`."""
    own = [
        item
        for key, item in vars(module).items()
        if isinstance(item, type)
        and issubclass(item, base)
        and item.__module__ == module.__name__
        and hasattr(item, mark)
        and not key.startswith("_")
    ]
    if len(own) != 1:
        names = ", ".join(item.__name__ for item in own) or "none"
        counted = "" if mark == "__doc__" else f" What counts is a {base.__name__} with `{mark}`."
        raise failure(f"{module.__file__} must define exactly one public {kind} class; it defines {names}.{counted}")
    return own[0]


def recipe(rule_name: str, protocol_name: str) -> Recipe | None:
    """The rule's recipe for a protocol: the one of that name, else `default`, else none.

    Raises:
        ProtocolError: the recipe file is malformed.
    """
    found = recipes(rule_name)
    return found.get(protocol_name, found.get("default"))


def recipe_place(rule_name: str, protocol_name: str) -> str:
    """Where the rule's recipe for a protocol stands: its file, and which it is of those in there."""
    found = recipes(rule_name)
    which = protocol_name if protocol_name in found else "default"
    return f"{rule_path(rule_name).with_suffix('.yaml')}, recipe '{which}'" if found else "the protocol's defaults"


def stray_recipes(rule_name: str, protocol_name: str) -> str | None:
    """What is to say of a rule that has no recipe for a protocol, but one for a name much like it; None if nothing is.

    A recipe may be meant for a protocol outside the registry, so such a name is no error.
    """
    found = recipes(rule_name)
    if protocol_name in found or "default" in found:
        return None
    near = get_close_matches(protocol_name, set(found) - set(_files("protocols")), n=1, cutoff=0.8)
    if not near:
        return None
    return (
        f"{rule_path(rule_name).with_suffix('.yaml').name} has a recipe for '{near[0]}', and none for "
        f"'{protocol_name}': the protocol's defaults stand"
    )


def recipes(rule_name: str) -> dict[str, Recipe]:
    """All recipes of a rule, by protocol name."""
    return load_recipes(rule_path(rule_name).with_suffix(".yaml"))


def rule_source_hash(name: str) -> str:
    """Fingerprint of a rule file's code.

    Raises:
        RuleError: the file is not valid Python.
    """
    return _source_hash(rule_path(name), RuleError)


def architecture_source_hash(name: str) -> str:
    """Fingerprint of an architecture file's code; of its first code, where that computes the same numbers.

    Raises:
        ProtocolError: the file is not valid Python.
    """
    path = architecture_path(name)
    found, same = _source_hash(path, ProtocolError), _same_numbers().get(path.stem, [])
    return same[0] if found in same else found


def first_architecture_hash(name: str) -> str | None:
    """That of the code behind results from before an architecture's code was recorded; None if there are none."""
    return _same_numbers().get(architecture_path(name).stem, [None])[0]


@cache
def _same_numbers() -> dict[str, list[str]]:
    """Architecture → fingerprints of all code it has had that computes the same numbers, the first one first."""
    return read_yaml(Path(str(files("hebbbench.architectures"))) / "code.yaml")


def _source_hash(path: Path, failure: type[HebbBenchError]) -> str:
    try:
        return code_hash(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise failure(f"{path} cannot be imported: SyntaxError: {error}") from error


def summary(name: str) -> str:
    """The first line of a rule's or architecture's file, without importing it.

    Raises:
        UnknownNameError: there is neither.
    """
    known = {**_files("architectures"), **_files("rules")}
    if name not in known:
        raise unknown_name("rule or architecture", name, known)
    text = ast.get_docstring(ast.parse(known[name][1].read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]
