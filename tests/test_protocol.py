"""Protocols and recipes as data: strict keys, honest errors, one hash for one work, what is frozen."""

from __future__ import annotations

import copy
import itertools
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from hebbbench import registry
from hebbbench.cell import cells, parse_axes
from hebbbench.data import dataset_spec
from hebbbench.errors import ProtocolError, UnknownNameError
from hebbbench.plasticity.rule import per_layer
from hebbbench.plasticity.select import select
from hebbbench.protocol import Protocol, load_protocol
from hebbbench.recipe import Recipe, RecipeFile, load_recipes, resolve
from hebbbench.training import optimise
from hebbbench.training.network import build_model
from hebbbench.validation import canonical_json, read_yaml, validate

VALID: dict[str, Any] = {
    "name": "toy",
    "version": 1,
    "title": "A toy",
    "description": "Made for tests.",
    "data": {"dataset": "digits", "validation": 200, "mean": [0.5], "std": [0.5]},
    "architecture": {"name": "mlp", "options": {"widths": [64], "norm": "batch", "dropout": 0.0}},
    "plastic": ["fc*"],
    "training": {
        "epochs": 5,
        "batch_size": 32,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
        "rest": {"lr": 0.01},
        "init": {"law": "normal", "radius": 25.0},
    },
    "free": ["epochs", "optimizer", "architecture.norm", "architecture.dropout"],
    "budget": {"epochs": 10},
    "seeds": [0, 1, 2],
    "probe": {"epochs": 10, "batch_size": 64, "lr": 0.001, "halve_at": [0.5], "statistics_samples": 100},
    "chance": 0.1,
    "axes": {
        "norm": {"path": "architecture.options.norm", "values": ["batch", "none"]},
        "decay": {"path": "training.optimizer.weight_decay", "values": [0.0, 0.01]},
    },
    "published": [{"rule": "bp", "value": 0.97, "source": "nobody 2020", "axes": {"norm": "batch"}}],
}
MISSING = object()


def changed(path: str, value: Any, base: dict[str, Any] = VALID) -> dict[str, Any]:
    """`base` with the value at a dotted path set, or removed if it is MISSING."""
    tree = copy.deepcopy(base)
    *parents, last = path.split(".")
    node: Any = tree
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node[part]
    if value is MISSING:
        del node[last]
    else:
        node[last] = value
    return tree


def make(path: str | None = None, value: Any = None) -> Protocol:
    return validate(Protocol, changed(path, value) if path else VALID, "toy.yaml")


def refusal(path: str, value: Any) -> str:
    with pytest.raises(ProtocolError) as caught:
        make(path, value)
    return str(caught.value)


# Strict keys and values


def test_a_valid_protocol_is_accepted_and_cannot_be_changed():
    protocol = make()
    assert protocol.training.optimizer.lr == 0.1
    with pytest.raises(ValueError, match="frozen"):
        protocol.version = 2


@pytest.mark.parametrize(
    ("typo", "near"),
    [
        ("contols", "controls"),
        ("data.datset", "dataset"),
        ("architecture.optons", "options"),
        ("training.batchsize", "batch_size"),
        ("training.optimizer.momentm", "momentum"),
        ("training.rest.wieght_decay", "weight_decay"),
        ("training.init.raduis", "radius"),
        ("probe.standardise", "standardize"),
        ("budget.epoch", "epochs"),
        ("axes.norm.valeus", "values"),
        ("published.0.sorce", "source"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_valid_one(typo, near):
    message = refusal(typo, 1)
    assert message.startswith("toy.yaml: ")
    assert f"unknown key '{typo.rpartition('.')[2]}'" in message
    assert f"Did you mean '{near}'?" in message


@pytest.mark.parametrize(
    "key",
    [
        *("name", "version", "data", "architecture", "plastic", "training", "budget", "seeds"),
        *("data.dataset", "architecture.name", "training.epochs", "training.optimizer.lr"),
        *("probe.statistics_samples", "budget.epochs", "axes.norm.path"),
    ],
)
def test_a_missing_key_is_named(key):
    assert f"the key '{key}' is missing" in refusal(key, MISSING)


def test_an_accuracy_needs_its_probe_and_the_chance_of_guessing_right():
    assert "headline = 'probe.test.accuracy' needs the section 'probe'" in refusal("probe", MISSING)
    assert "chance, the accuracy of guessing, is missing" in refusal("chance", MISSING)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "Not A Name"),
        ("version", 0),
        ("data.validation", -1),
        ("data.mean", 0.5),
        ("data.std", [0.0]),
        ("data.augment", "mixup"),
        ("architecture.options", ["relu"]),
        ("plastic", "fc*"),
        ("plastic", []),
        ("training.epochs", 1.5),
        ("training.batch_size", 0),
        ("training.schedule", "greedy"),
        ("training.annealing", "cosin"),
        ("training.optimizer.name", "lion"),
        ("training.optimizer.lr", "fast"),
        ("training.optimizer.lr", [0.1, -0.1]),
        ("training.optimizer.momentum", 1.0),
        ("training.optimizer.weight_decay", float("inf")),
        ("training.init.law", "orthogonal"),
        ("training.init.radius", -1.0),
        ("probe.lr", 0.0),
        ("probe.lr", float("nan")),
        ("probe.dropout", 1.0),
        ("probe.halve_at", [1.5]),
        ("budget.epochs", "ten"),
        ("axes.norm.values", []),
        ("published.0.value", 97.0),
        ("precision", "float16"),
        ("headline", "accuracy"),
        ("seeds", []),
        ("seeds", [-1]),
        ("seeds", "0..4"),
        ("chance", 10),
        ("free", "epochs"),
    ],
)
def test_a_wrong_value_is_refused_by_path(path, value):
    told = refusal(path, value)
    assert path.replace(".0.", ".") in told.replace(".0.", ".")
    assert "nput should" not in told


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("training.batch_size", 0, "training.batch_size = 0 must be greater than 0"),
        ("data.validation", -1, "data.validation = -1 must be 0 or more"),
        ("probe.dropout", 1.0, "probe.dropout = 1.0 must be less than 1"),
        ("published.0.value", 97.0, "value = 97.0 must be 1 or less"),
        ("training.optimizer.lr", -1, "training.optimizer.lr = -1 must be greater than 0 or a list"),
        ("training.annealing", "cosin", "'cosin' must be constant, cosine or linear (did you mean 'cosine'?)"),
        ("training", 5, "training = 5 must be a section of keys and values"),
        ("architecture.options", [], "architecture.options = [] must be a section of keys and values"),
        ("headline", "accuracy", "must be probe.test.accuracy, end_to_end.test.accuracy or alignment.LAYER"),
        ("name", "My Protocol", "name = 'My Protocol' must be small letters, digits, - and _"),
        ("title", 3, "title = 3 must be text"),
        ("seeds", [], "seeds = [] needs 1 or more entries"),
        ("diagnostics", "yes", "diagnostics = 'yes' must be true or false"),
    ],
)
def test_what_a_value_must_be_is_said_in_plain_words(path, value, message):
    assert message in refusal(path, value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("training.batch_size", "64"),
        ("training.epochs", True),
        ("training.optimizer.lr", "0.1"),
        ("training.optimizer.nesterov", "yes"),
        ("chance", False),
    ],
)
def test_nothing_is_converted_silently(path, value):
    assert path in refusal(path, value)


def test_a_whole_number_may_stand_where_a_fraction_is_meant():
    assert make("data.mean", [0]).hash == make("data.mean", [0.0]).hash


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("training.optimizer", {"lr": 0.1, "nesterov": True}, "nesterov needs a momentum above 0"),
        ("training.optimizer", {"name": "adam", "lr": 0.1, "momentum": 0.9}, "belong to sgd, not to adam"),
        ("training.rest", {"name": "adamw", "lr": 0.1, "momentum": 0.9}, "belong to sgd, not to adamw"),
        ("training.rest", {"lr": 0.1, "clip": 1.0}, "rest.clip has no effect: optimizer.clip is of all parameters"),
        ("training.init", {"law": "normal"}, "radius is given exactly when"),
        ("training.init", {"law": "architecture", "radius": 1.0}, "radius is given exactly when"),
        ("training.epochs", 11, "training.epochs = 11 is over budget.epochs = 10"),
        ("data.mean", [0.5, 0.5], "data.mean has 2 channels and data.std 1"),
        ("seeds", [0, 1, 0], "seeds = [0, 1, 0] repeats a seed"),
        ("free", ["optimiser"], "'optimiser' is nothing a recipe could choose. Did you mean 'optimizer'?"),
        ("free", ["architecture.nrm"], "Did you mean 'architecture.norm'?"),
        ("free", ["probe"], "free: 'probe' is nothing a recipe could choose"),
        ("axes.norm.path", "architecture.options.nrom", "there is no 'nrom'. Did you mean 'norm'?"),
        ("axes.norm.path", "trainin.epochs", "there is no 'trainin'. Did you mean 'training'?"),
        ("axes.norm.path", "norm", "there is no 'norm'"),
        ("published.0.axes", {"nrom": "batch"}, "the axis 'nrom' is none of this protocol. Did you mean"),
    ],
)
def test_an_impossible_combination_is_refused_with_its_reason(path, value, message):
    assert message in refusal(path, value)


def test_every_fault_is_told_at_once():
    tree = changed("budget.epoch", 1, changed("data.datset", "x"))
    with pytest.raises(ProtocolError, match=r"'epoch' in 'budget'") as caught:
        validate(Protocol, tree, "toy.yaml")
    assert "'datset' in 'data'" in str(caught.value)


# Files


def save(folder: Path, text: str, name: str = "toy.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_protocol_survives_a_trip_through_yaml(tmp_path):
    assert load_protocol(save(tmp_path, yaml.safe_dump(VALID))) == make()


def test_a_protocol_may_be_given_by_path(tmp_path):
    assert registry.protocol(str(save(tmp_path, yaml.safe_dump(VALID)))).name == "toy"
    with pytest.raises(UnknownNameError, match=r"no protocol 'toy-not-there'.*path of a \.yaml file"):
        registry.protocol("toy-not-there")


def test_the_file_is_named_as_the_protocol_is(tmp_path):
    with pytest.raises(ProtocolError, match=r"name = 'toy', but the file is 'tin\.yaml'.*rename"):
        load_protocol(save(tmp_path, yaml.safe_dump(VALID), "tin.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "the key 'a' is given twice"),
        ("a:\n  b: 1\n  b: 1\n", "the key 'b' is given twice"),
        ("- 1\n- 2\n", "must hold a mapping of keys to values, not list"),
        ("just words\n", "must hold a mapping of keys to values, not str"),
        ("", "must hold a mapping of keys to values, not NoneType"),
        ("a: [1, 2\n", "is not valid YAML"),
        ("a:\n\t- 1\n", "is not valid YAML"),
        ("a: !!python/object:os.system x\n", "is not valid YAML"),
        ("[a, b]: 1\n", "is not valid YAML"),
    ],
    ids=["key-twice", "nested-key-twice", "list", "text", "empty", "unclosed", "tab", "object", "list-key"],
)
def test_a_bad_file_is_refused_with_its_path(tmp_path, text, message):
    path = save(tmp_path, text)
    with pytest.raises(ProtocolError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path):
    with pytest.raises(ProtocolError, match="cannot be read: No such file"):
        read_yaml(tmp_path / "absent.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ProtocolError, match="is not valid YAML"):
        read_yaml(tmp_path / "bytes.yaml")


@pytest.mark.parametrize(
    ("text", "number"), [("1e-3", 1e-3), ("1E5", 1e5), ("-2e+3", -2e3), (".5e2", 50.0), ("1.e-2", 0.01)]
)
def test_exponents_are_numbers(tmp_path, text, number):
    assert read_yaml(save(tmp_path, f"lr: {text}\n")) == {"lr": number}


@pytest.mark.parametrize("text", ["1e-3x", "e5", "sgd", "'1e-3'"])
def test_words_are_words(tmp_path, text):
    assert isinstance(read_yaml(save(tmp_path, f"lr: {text}\n"))["lr"], str)


def test_a_merged_key_may_be_given_anew(tmp_path):
    text = "base: &base {lr: 0.1, momentum: 0.9}\nrest: {<<: *base, lr: 0.2}\n"
    assert read_yaml(save(tmp_path, text))["rest"] == {"lr": 0.2, "momentum": 0.9}


# The hash


def reversed_keys(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: reversed_keys(tree[key]) for key in reversed(tree)}
    return [reversed_keys(item) for item in tree] if isinstance(tree, list) else tree


def test_the_order_of_keys_does_not_change_the_hash():
    assert validate(Protocol, reversed_keys(VALID), "toy").hash == make().hash


def test_a_default_written_out_does_not_change_the_hash():
    assert make("training.annealing", "constant").hash == make().hash
    assert make("training.optimizer.nesterov", False).hash == make().hash


@pytest.mark.parametrize(
    ("path", "value"),
    [("title", "Another"), ("description", "Other prose."), ("published", []), ("controls", ["bp"])],
)
def test_what_decides_no_number_does_not_change_the_hash(path, value):
    assert make(path, value).hash == make().hash


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "toy2"),
        ("version", 2),
        ("data.dataset", "mnist"),
        ("data.validation", 201),
        ("data.mean", [0.4]),
        ("data.std", [0.4]),
        ("data.augment", "crop-flip"),
        ("architecture.name", "fasthebb"),
        ("architecture.options.widths", [65]),
        ("plastic", ["fc1"]),
        ("plastic_unsupervised", ["fc1"]),
        ("training.epochs", 6),
        ("training.batch_size", 33),
        ("training.schedule", "layerwise"),
        ("training.annealing", "cosine"),
        ("training.optimizer.lr", 0.2),
        ("training.optimizer.lr", [0.1]),
        ("training.optimizer.momentum", 0.8),
        ("training.optimizer.weight_decay", 0.1),
        ("training.rest", None),
        ("training.init.radius", 24.0),
        ("free", ["epochs"]),
        ("budget.epochs", 11),
        ("seeds", [0, 1]),
        ("probe.epochs", 11),
        ("probe.lr", 0.002),
        ("probe.weight_decay", 0.1),
        ("probe.dropout", 0.5),
        ("probe.halve_at", []),
        ("probe.standardize", True),
        ("probe.statistics_samples", 0),
        ("headline", "end_to_end.test.accuracy"),
        ("axes.decay.values", [0.0]),
    ],
)
def test_what_decides_a_number_changes_the_hash(path, value):
    assert make(path, value).hash != make().hash


def test_canonical_json_is_sorted_compact_and_has_no_nan():
    assert canonical_json({"b": 1.0, "a": [True, None, "é"]}) == '{"a":[true,null,"é"],"b":1.0}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


# Axes


def test_a_point_of_the_table_has_the_axes_values():
    point = make().at({"norm": "none", "decay": 0.01})
    assert point.architecture.options["norm"] == "none"
    assert point.training.optimizer.weight_decay == 0.01
    assert point.training.optimizer.momentum == 0.9
    assert make().architecture.options["norm"] == "batch"


def test_different_points_have_different_hashes():
    protocol = make()
    points = [{"norm": norm, "decay": decay} for norm in ("batch", "none") for decay in (0.0, 0.01)]
    assert len({protocol.at(point).hash for point in points}) == 4


@pytest.mark.parametrize("text", ["0.01", "1e-2", "1.0e-2", ".01"])
def test_an_axis_value_may_be_written_as_any_text_of_its_number(text):
    assert parse_axes([f"decay={text}", "norm=none"], make()) == {"decay": 0.01, "norm": "none"}
    with pytest.raises(ProtocolError, match=r"axis decay = '0\.02' is not in protocol 'toy'"):
        parse_axes(["decay=0.02"], make())


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"norm": "none"}, r"needs a value of the axis 'decay': \[0.0, 0.01\]"),
        ({"norm": "none", "decay": 0.5}, r"axis decay = 0.5 is not in protocol 'toy'. Values: \[0.0, 0.01\]"),
        ({"norm": "none", "decay": 0.0, "decy": 0}, r"no axis 'decy'. Did you mean 'decay'\?"),
    ],
    ids=["missing", "unlisted", "unknown"],
)
def test_a_point_outside_the_table_is_refused(axes, message):
    with pytest.raises(ProtocolError, match=message):
        make().at(axes)


def test_a_protocol_without_axes_has_one_point():
    plain = changed("published", [], changed("axes", {}))
    protocol = validate(Protocol, plain, "toy")
    assert protocol.at({}) == protocol


# Recipes


def recipe(**fields: Any) -> Recipe:
    return validate(Recipe, {"provenance": "default", **fields}, "recipe")


def test_without_a_recipe_a_rule_gets_the_protocols_training():
    resolved = resolve(make(), None, "oja")
    assert resolved.training == make().training
    assert resolved.architecture == make().architecture.options
    assert resolved.provenance == "default"


def test_a_recipe_overrides_what_is_free_and_nothing_else():
    choice = recipe(
        hyperparameters={"temperature": 0.5},
        epochs=7,
        optimizer={"name": "adam", "lr": 0.001},
        architecture={"dropout": 0.5},
    )
    resolved = resolve(make(), choice, "softhebb")
    assert resolved.hyperparameters == {"temperature": 0.5}
    assert resolved.training.epochs == 7
    assert resolved.training.optimizer == choice.optimizer
    assert resolved.training.batch_size == 32
    assert resolved.training.init.radius == 25.0
    assert resolved.architecture == {"widths": [64], "norm": "batch", "dropout": 0.5}


@pytest.mark.parametrize(
    ("fields", "entry"),
    [
        ({"batch_size": 10}, "batch_size"),
        ({"schedule": "layerwise"}, "schedule"),
        ({"annealing": "cosine"}, "annealing"),
        ({"rest": {"lr": 0.1}}, "rest"),
        ({"init": {"law": "architecture"}}, "init"),
        ({"architecture": {"widths": [9999]}}, "architecture.widths"),
        ({"architecture": {"invented": 1}}, "architecture.invented"),
    ],
)
def test_a_recipe_that_touches_what_is_frozen_is_refused_by_name(fields, entry):
    with pytest.raises(ProtocolError) as caught:
        resolve(make(), recipe(**fields), "softhebb")
    assert f"of rule 'softhebb' sets '{entry}', which protocol 'toy' v1 freezes" in str(caught.value)
    assert "Free: epochs, optimizer, architecture.norm, architecture.dropout." in str(caught.value)


def test_an_axis_over_a_hyperparameter_varies_the_rules_that_have_it():
    protocol = make("hyperparameters", {"temperature": 1.0})
    varied = changed("axes", {"tau": {"path": "hyperparameters.temperature", "values": [0.5, 2.0]}})
    varied |= {"hyperparameters": {"temperature": 1.0}, "published": []}
    point = validate(Protocol, varied, "toy.yaml").at({"tau": 2.0})
    has = Recipe(provenance="default", hyperparameters={"temperature": 3.0, "power": 2})
    assert resolve(protocol, has, "ghl").hyperparameters == {"temperature": 1.0, "power": 2}
    assert resolve(point, has, "ghl").hyperparameters == {"temperature": 2.0, "power": 2}
    assert resolve(point, None, "bp").hyperparameters == {}


def test_no_fixed_hyperparameters_leave_the_hash_as_it_was():
    assert "hyperparameters" not in make().identity()
    assert make().hash == make("hyperparameters", {}).hash != make("hyperparameters", {"temperature": 1.0}).hash


def test_where_the_depth_is_an_axis_lists_are_cut_to_it():
    plain = changed("architecture", {"name": "deephebb", "options": {"depth": 3}})
    plain |= {"axes": {"depth": {"path": "architecture.options.depth", "values": [1, 2, 3]}}, "published": []}
    plain["free"] = ["optimizer"]
    recipe = Recipe(
        provenance="default",
        hyperparameters={"temperature": [1.0, 2.0, 3.0], "rate_power": 0.5},
        optimizer={"lr": [0.1, 0.2, 0.3]},
    )
    resolved = resolve(validate(Protocol, plain, "toy.yaml").at({"depth": 2}), recipe, "softhebb")
    assert resolved.hyperparameters == {"temperature": [1.0, 2.0], "rate_power": 0.5}
    assert resolved.training.optimizer.lr == [0.1, 0.2]


def test_a_recipe_may_not_spend_more_than_the_budget():
    assert resolve(make(), recipe(epochs=10), "bp").training.epochs == 10
    with pytest.raises(ProtocolError, match=r"asks for epochs = 11; protocol 'toy' allows at most 10"):
        resolve(make(), recipe(epochs=11), "bp")


SEARCH = {"trials": 20, "seconds": 60.0, "split": "validation", "space": "lr in 1e-4..1"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"provenance": "searched"}, "'searched' and a 'search' block"),
        ({"provenance": "default", "search": SEARCH}, "'searched' and a 'search' block"),
        ({"provenance": "paper"}, "'paper' needs a 'source'"),
        ({"provenance": "guessed"}, "provenance = 'guessed'"),
        ({"provenance": "searched", "search": SEARCH | {"split": "test"}}, "search.split = 'test'"),
        ({"provenance": "searched", "search": SEARCH | {"trials": 0}}, "search.trials = 0"),
    ],
)
def test_a_recipe_says_honestly_where_it_comes_from(fields, message):
    with pytest.raises(ProtocolError) as caught:
        validate(Recipe, fields, "recipe")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "fields", [{"provenance": "searched", "search": SEARCH}, {"provenance": "paper", "source": "x"}]
)
def test_a_recipes_provenance_is_kept(fields):
    resolved = resolve(make(), validate(Recipe, fields, "recipe"), "bp")
    assert resolved.provenance == fields["provenance"]
    assert resolved.identity() == resolve(make(), None, "bp").identity()


@pytest.mark.parametrize(
    ("fields", "near"),
    [({"optimzer": {}}, "optimizer"), ({"optimizer": {"lr": 0.1, "momentm": 0}}, "momentum")],
)
def test_a_typo_in_a_recipe_file_is_refused_with_the_nearest_key(fields, near):
    with pytest.raises(ProtocolError, match=rf"Did you mean '{near}'\?"):
        validate(RecipeFile, {"recipes": {"toy": {"provenance": "default", **fields}}}, "rule.yaml")


def test_recipes_are_read_by_protocol_name(tmp_path):
    text = "recipes:\n  toy: {provenance: default, epochs: 3}\n  default: {provenance: default}\n"
    assert load_recipes(save(tmp_path, text, "rule.yaml"))["toy"].epochs == 3
    assert load_recipes(tmp_path / "absent.yaml") == {}


# What the repository ships


@pytest.mark.parametrize("name", registry.protocol_names())
def test_every_protocol_loads_and_names_what_exists(name):
    protocol = registry.protocol(name)
    assert protocol.name == name
    assert protocol.architecture.name in registry.architecture_names()
    assert set(protocol.controls) <= set(registry.rule_names())
    for values in itertools.product(*(axis.values for axis in protocol.axes.values())):
        protocol.at(dict(zip(protocol.axes, values, strict=True)))


@cache
def plastic_layers(architecture: str, options: str, dataset: str, patterns: tuple[str, ...]) -> list[str]:
    spec = dataset_spec(dataset)
    model = build_model(architecture, json.loads(options), spec.shape, spec.classes, outline=True)
    return list(select(model, list(patterns)))


@pytest.mark.parametrize("name", [name for name in registry.protocol_names() if registry.protocol(name).axes])
def test_every_recipe_has_one_value_a_layer_at_every_point_of_a_table(name):
    protocol = registry.protocol(name)
    for rule in (rule for rule in registry.rule_names() if name in registry.recipes(rule)):
        for cell in cells(protocol, [rule], [0], {}):
            work, options = cell.work, json.dumps(cell.recipe.architecture)
            patterns = work.plastic if registry.rule(rule).end_to_end() else work.plastic_unsupervised or work.plastic
            layers = plastic_layers(work.architecture.name, options, work.data.dataset, tuple(patterns))
            per_layer(registry.rule(rule), cell.recipe.hyperparameters, layers)
            optimise.rates(cell.recipe.training.optimizer, layers)


@pytest.mark.parametrize("rule", registry.rule_names())
def test_every_recipe_is_for_a_protocol_that_exists(rule):
    assert set(registry.recipes(rule)) <= {*registry.protocol_names(), "default"}


MEANT = [
    (name, rule)
    for name in registry.protocol_names()
    for rule in registry.protocol(name).rules or registry.rule_names()
]


@pytest.mark.parametrize(("name", "rule"), MEANT)
def test_the_recipe_of_every_rule_meant_for_a_protocol_fits_it(name, rule):
    resolved = resolve(registry.protocol(name), registry.recipe(rule, name), rule)
    first = {key: v[0] if isinstance(v, list) else v for key, v in resolved.hyperparameters.items()}
    registry.rule(rule).create(first, name)
