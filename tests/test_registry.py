"""Names: found by file, by path, by entry point; never twice. And randomness that depends on names alone."""

from __future__ import annotations

import importlib.metadata
import itertools
import sys
from pathlib import Path

import pytest
import torch

from conftest import NETWORK
from hebbbench import registry, rng
from hebbbench.errors import HebbBenchError, ProtocolError, RuleError, UnknownNameError

RULE = (
    '"""From outside."""\nfrom hebbbench import Rule\n\n\n'
    "class {name}(Rule):\n    def delta(self, grad):\n        return -grad\n"
)


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """Installs packages by entry point: outside(kind, package, {file: text})."""
    points: list[importlib.metadata.EntryPoint] = []
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "entry_points", lambda group: [point for point in points if point.group == group])

    def install(kind: str, package: str, files: dict[str, str]) -> Path:
        folder = tmp_path / package
        folder.mkdir()
        for name, text in {"__init__.py": "", **files}.items():
            (folder / name).write_text(text)
        points.append(importlib.metadata.EntryPoint(package, package, f"hebbbench.{kind}"))
        registry._files.cache_clear()
        return folder

    yield install
    registry._files.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] in {point.name for point in points}]:
        del sys.modules[name]


# Rules


def test_every_rule_of_the_repository_is_found_by_its_files_name():
    folder = Path(__file__).resolve().parents[1] / "rules"
    assert registry.rule_names() == sorted(path.stem for path in folder.glob("[!_]*.py"))
    for name in registry.rule_names():
        assert registry.rule_path(name) == folder / f"{name}.py"
        assert registry.rule(name).signals


def test_an_unknown_name_gets_the_nearest_one_and_all_of_them():
    known = r"no rule 'softheb'\. Did you mean 'softhebb'\? Valid: .*bp, .*a \.py file"
    with pytest.raises(UnknownNameError, match=known):
        registry.rule("softheb")
    with pytest.raises(UnknownNameError, match=r"no protocol 'digits'\. Did you mean 'digits-mlp'\?"):
        registry.protocol("digits")
    with pytest.raises(UnknownNameError, match=r"no architecture 'mpl'\. Did you mean 'mlp'\?"):
        registry.architecture("mpl")


def test_a_package_adds_rules_protocols_and_architectures_by_entry_point(outside):
    protocol = registry._files("protocols")["digits-mlp"][1].read_text().replace("name: digits-mlp", "name: theirs")
    network = (
        "from torch import nn\n\n\nclass Net(nn.Module):\n    layout = 'flat'\n"
        "    def __init__(self, input_shape, classes):\n        super().__init__()\n"
    )
    outside("rules", "their_rules", {"theirs.py": RULE.format(name="Theirs"), "theirs.yaml": "recipes: {}\n"})
    outside("protocols", "their_protocols", {"theirs.yaml": protocol})
    outside("architectures", "their_nets", {"theirs.py": network})
    assert "theirs" in registry.rule_names()
    assert registry.rule("theirs").__module__ == "their_rules.theirs"
    assert registry.summary("theirs") == "From outside."
    assert registry.recipes("theirs") == {}
    assert registry.protocol("theirs").name == "theirs"
    assert registry.architecture("theirs").__name__ == "Net"


@pytest.mark.parametrize("kind", ["rules", "protocols", "architectures"])
def test_a_name_taken_twice_is_refused_with_both_files(outside, kind):
    name = {"rules": "bp.py", "protocols": "digits-mlp.yaml", "architectures": "mlp.py"}[kind]
    folder = outside(kind, "theirs", {name: ""})
    with pytest.raises(HebbBenchError, match=rf"taken twice among {kind}: by .* and by {folder / name}\. Rename one"):
        registry._files(kind)


def test_two_packages_may_not_share_a_name_either(outside):
    outside("rules", "one", {"mine.py": RULE.format(name="Mine")})
    outside("rules", "two", {"mine.py": RULE.format(name="Mine")})
    with pytest.raises(HebbBenchError, match="'mine' is taken twice"):
        registry.rule_names()


def test_an_entry_point_to_a_package_that_is_not_there_is_an_error_that_names_it(outside, tmp_path):
    folder = outside("rules", "gone", {})
    (folder / "__init__.py").unlink()
    folder.rmdir()
    with pytest.raises((HebbBenchError, ModuleNotFoundError), match="gone"):
        registry.rule_names()


def test_a_rule_by_path_is_the_class_in_that_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(RULE.format(name="Mine"))
    assert registry.rule(str(path)).__name__ == "Mine"
    assert registry.rule(str(path)) is registry.rule(str(path))
    assert "mine" not in registry.rule_names()


def test_a_file_that_ends_the_program_is_an_error(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("import sys\n\nsys.exit(3)\n")
    with pytest.raises(RuleError, match=r"mine\.py cannot be imported: it calls sys\.exit\(3\)"):
        registry.rule(str(path))


def test_a_protocol_by_path_may_not_take_a_registered_name(tmp_path):
    known = registry._files("protocols")["digits-mlp"][1]
    assert registry.protocol(str(known)).name == "digits-mlp"
    path = tmp_path / "digits-mlp.yaml"
    path.write_text(known.read_text().replace("epochs: 30", "epochs: 3"))
    with pytest.raises(
        ProtocolError, match=r"the name 'digits-mlp' of .* belongs to .*Rename the file and the protocol"
    ):
        registry.protocol(str(path))


@pytest.mark.parametrize("key", ["controls", "rules"])
def test_a_protocol_by_path_names_rules_that_exist(tmp_path, key):
    text = registry._files("protocols")["digits-mlp"][1].read_text().replace("name: digits-mlp", "name: mine")
    path = tmp_path / "mine.yaml"
    path.write_text(
        "".join(line for line in text.splitlines(True) if not line.startswith(key)) + f"{key}: [bp, oyja]\n"
    )
    with pytest.raises(ProtocolError, match=rf"mine\.yaml: {key}: there is no rule 'oyja'\. Did you mean 'oja'"):
        registry.protocol(str(path))


def test_two_files_of_one_name_are_two_rules(tmp_path):
    for folder, name in (("a", "First"), ("b", "Second")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(RULE.format(name=name))
    assert registry.rule(str(tmp_path / "a" / "mine.py")).__name__ == "First"
    assert registry.rule(str(tmp_path / "b" / "mine.py")).__name__ == "Second"
    assert registry.rule(str(tmp_path / "a" / "mine.py")).__name__ == "First"


def test_a_path_may_not_take_a_registered_name(tmp_path):
    (tmp_path / "bp.py").write_text(RULE.format(name="Mine"))
    with pytest.raises(RuleError, match=r"the name 'bp' .* belongs to .*rules/bp\.py\. Rename your file"):
        registry.rule(str(tmp_path / "bp.py"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "must define exactly one public rule class; it defines none"),
        (RULE.format(name="A") + RULE.format(name="B"), "exactly one public rule class; it defines A, B"),
        ("def broken(:\n", r"cannot be imported: SyntaxError"),
        ("import no_such_module\n", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise ValueError('early')\n", "cannot be imported: ValueError: early"),
        (RULE.format(name="A").replace("grad", "gard"), "asks for the signal 'gard'.*Did you mean 'grad'"),
    ],
)
def test_a_file_without_one_sound_rule_is_refused_by_its_path(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(RuleError, match=message):
        registry.rule(str(path))


def test_a_file_that_failed_can_be_repaired_in_the_same_process(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("raise ValueError('early')\n")
    with pytest.raises(RuleError):
        registry.rule(str(path))
    path.write_text(RULE.format(name="Mended"))
    assert registry.rule(str(path)).__name__ == "Mended"


def test_a_recipe_file_that_is_malformed_is_refused_by_its_path(tmp_path):
    (tmp_path / "mine.py").write_text(RULE.format(name="Mine"))
    (tmp_path / "mine.yaml").write_text("recipes: {digits-mlp: {provenance: default, epoch: 3}}\n")
    with pytest.raises(ProtocolError, match=r"mine\.yaml: unknown key 'epoch'.*Did you mean 'epochs'"):
        registry.recipe(str(tmp_path / "mine.py"), "digits-mlp")


# The hash of a rule's code


BASE = (
    '"""Doc."""\nfrom hebbbench import Rule\n\n\nclass A(Rule):\n    """Doc."""\n\n'
    "    def delta(self, grad):\n        return -grad\n"
)


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ('"""Doc."""', '"""Another\n\ntext, 2 × as long."""', True),
        ("return -grad", "return -grad  # why", True),
        ("        return", "\n        # a reason\n\n        return", True),
        ("return -grad", "return -grad * 2", False),
        ("return -grad", "return +grad", False),
        ("class A", "class B", False),
        ("        return", "        grad = grad + 0\n        return", False),
        ("return -grad", "return -grad * len('# not a comment')", False),
    ],
)
def test_a_hash_covers_the_code_and_nothing_else(tmp_path, old, new, same):
    path = tmp_path / "mine.py"
    path.write_text(BASE)
    before = registry.rule_source_hash(str(path))
    path.write_text(BASE.replace(old, new))
    assert (registry.rule_source_hash(str(path)) == before) is same


# Architectures


def test_an_architecture_by_path_is_the_class_in_that_file(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(NETWORK)
    assert registry.architecture(str(path)).__name__ == "Net"
    assert registry.architecture_path(str(path)) == path
    assert "net" not in registry.architecture_names()
    assert registry.first_architecture_hash(str(path)) is None


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "gone.py",
            "",
            "",
            r"no architecture file .*gone\.py here: .*\. Give its path, or an architecture's name",
        ),
        ("mlp.py", "", "", r"the name 'mlp' of .* belongs to .*architectures/mlp\.py\. Rename your file"),
        ("net.py", "layout", "lay", r"defines none\. What counts is a Module with `layout`"),
        ("net.py", "nn.Module", "nn.Modul", r"net\.py cannot be imported: AttributeError"),
        ("net.py", "layout =", "layout", r"net\.py cannot be imported: SyntaxError"),
    ],
)
def test_a_file_without_one_sound_architecture_is_refused_by_its_path(tmp_path, name, old, new, message):
    path = tmp_path / name
    if name != "gone.py":
        path.write_text(NETWORK.replace(old, new) if old else NETWORK)
    with pytest.raises(ProtocolError, match=message):
        registry.architecture(str(path))


def test_code_that_computes_the_same_numbers_counts_as_the_first(tmp_path, monkeypatch):
    path = tmp_path / "net.py"
    path.write_text(NETWORK)
    first = registry.architecture_source_hash(str(path))
    path.write_text(NETWORK.replace("width", "units"))
    second = registry.architecture_source_hash(str(path))
    assert first != second
    monkeypatch.setattr(registry, "_same_numbers", lambda: {"net": [first, second]})
    assert registry.architecture_source_hash(str(path)) == registry.first_architecture_hash(str(path)) == first
    path.write_text(NETWORK.replace("width=4", "width=5"))
    assert registry.architecture_source_hash(str(path)) not in (first, second)


# Randomness


def test_seeds_are_what_they_always_were():
    """Pinned: another value here is other numbers everywhere, and asks for a new numerics version."""
    assert rng.derive(0, "initialisation") == 1952974914541233639
    assert rng.derive(3, "augmentation", 12, 5) == 3050293477388647969


def test_every_purpose_counter_and_seed_draws_on_its_own():
    purposes = ("initialisation", "order", "augmentation", "dropout", "rule", "probe", "probe order", "statistics")
    moments = [(), (0,), (1,), (0, 0), (1, 0), (0, 1), (10,), (100,)]
    drawn = [
        rng.derive(seed, purpose, *moment) for seed, purpose, moment in itertools.product(range(6), purposes, moments)
    ]
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= value < 2**63 for value in drawn)


def test_seed_and_counter_cannot_be_mistaken_for_each_other():
    assert rng.derive(1, "order", 23) != rng.derive(12, "order", 3) != rng.derive(1, "order", 2, 3)


def test_a_generator_is_its_seeds_alone():
    torch.manual_seed(0)
    one = torch.rand(5, generator=rng.generator(1, "order", 2))
    torch.manual_seed(1)
    assert torch.equal(torch.rand(5, generator=rng.generator(1, "order", 2)), one)
    assert not torch.equal(torch.rand(5, generator=rng.generator(1, "order", 3)), one)


def test_the_global_generator_is_lent_and_given_back():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    with rng.torch_seeded(1, "initialisation"):
        one = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)

    def fail() -> None:
        with rng.torch_seeded(1, "initialisation"):
            assert torch.equal(torch.rand(3), one)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.initial_seed() == 8
