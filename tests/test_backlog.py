"""What a board misses is run in order of value, and what cannot be run is skipped, not stumbled over."""

from __future__ import annotations

import math
import re
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import At, Killed, Lab
from hebbbench import backlog, cli, data, registry
from hebbbench.backlog import Waiting, headline, missing
from hebbbench.cell import cells
from hebbbench.data import sources
from hebbbench.data.spec import DATASETS, DatasetSpec
from hebbbench.errors import DataError
from hebbbench.protocol import Protocol
from hebbbench.record import store


def one(lab: Lab, rule: str, seed: int = 0, begun: bool = False, seconds: float | None = None) -> Waiting:
    protocol = lab.protocol("digits-mlp", {"seeds": [0, 1, 2], "published": PUBLISHED})
    (cell,) = cells(protocol, [rule], [seed], {})
    return Waiting(cell, begun, seconds)


PUBLISHED = [{"rule": "ghl", "value": 0.9, "source": "a paper"}]


def names(waiting: list[Waiting]) -> list[str]:
    return [f"{item.cell.rule_name} {item.cell.seed}" for item in waiting]


def test_the_order_of_value(lab):
    mixed = [
        one(lab, "oja", 1, seconds=1),
        one(lab, "hebb", 0),
        one(lab, "oja", 0, seconds=5),
        one(lab, "bp", 1, seconds=9),
        one(lab, "fa", 0, seconds=2),
        one(lab, "ghl", 0, seconds=90),
        one(lab, "bp", 0, seconds=80),
        one(lab, "kwta", 2, begun=True),
    ]
    expected = ["kwta 2", "bp 0", "ghl 0", "fa 0", "oja 0", "hebb 0", "bp 1", "oja 1"]
    assert names(sorted(mixed, key=Waiting.precedence)) == expected


def test_what_has_a_result_is_not_missing_and_filters_narrow(lab):
    whole, _ = missing(lab.results)
    assert len(whole) > 100
    digits, refused = missing(lab.results, protocol="digits-mlp", rules=["bp", "oja"], seeds=["0-1"])
    assert (names(digits), refused) == (["bp 0", "oja 0", "bp 1", "oja 1"], [])
    lab.run(lab.cell("bp", registry.protocol("digits-mlp"), epochs=0), results=lab.results)  # another recipe's number
    assert len(missing(lab.results, protocol="digits-mlp", rules=["bp"])[0]) == 5
    (cell,) = cells(registry.protocol("digits-mlp"), ["random"], [0], {})
    lab.run(cell, results=lab.results)
    rest, _ = missing(lab.results, protocol="digits-mlp", rules=["random"])
    assert names(rest) == [f"random {seed}" for seed in (1, 2, 3, 4)]
    assert all(item.seconds is not None for item in rest)


RANKED = [
    "cifar10-deephebb-bf16",
    "cifar10-fasthebb-bf16",
    "cifar10-fasthebb-published",
    "cifar10-deephebb-published",
    "cifar10-deephebb",
    "cifar10-fasthebb",
    "cifar10-resnet-bf16 depth=20",
    "cifar10-vgg-bf16 depth=16",
    "cifar10-resnet depth=20",
    "cifar10-vgg depth=16",
]


def test_the_papers_networks_come_first_and_then_the_small_before_the_large(lab):
    waiting, _ = missing(lab.results)
    networks = [str(item.cell).partition(" · ")[0] for item in waiting if item.cell.seed == 0 and item.compared]
    assert list(dict.fromkeys(networks))[: len(RANKED)] == RANKED
    begins = {name: networks.index(name) for name in networks}
    ends = {name: index for index, name in enumerate(networks)}
    depths = [f"cifar10-resnet depth={depth}" for depth in (20, 32, 44, 56, 110, 1202)]
    for less, more in pairwise(depths):
        assert ends[less] < begins[more]
    rest = [item for item in waiting if item.cell.seed == 0 and item.compared and math.isinf(item.rank)]
    works = [item.work for item in rest]
    assert works == sorted(works)


def test_a_priority_is_for_the_axis_values_it_names_and_changes_no_hash(lab):
    plain = registry.protocol("cifar10-resnet").model_dump(mode="json")
    for priority in (None, {"rank": 1}, {"rank": 2, "axes": {"depth": 32}}):
        protocol = Protocol.model_validate({**plain, "priority": priority})
        assert protocol.hash == registry.protocol("cifar10-resnet").hash
        ranks = {cell.axes["depth"]: Waiting(cell, False, None).rank for cell in cells(protocol, ["bp"], [0], {})}
        given = {} if priority is None else dict.fromkeys(ranks, 1) if "axes" not in priority else {32: 2}
        assert ranks == dict.fromkeys(ranks, math.inf) | given
    with pytest.raises(ValueError, match="priority: depth = 33 is not among its values"):
        Protocol.model_validate({**plain, "priority": {"rank": 1, "axes": {"depth": 33}}})


def test_an_axis_leaves_out_protocols_without_it(lab):
    found, _ = missing(lab.results, rules=["bp"], axes=["depth=20"])
    assert {item.cell.axes["depth"] for item in found} == {20}


def test_a_cell_that_was_begun_comes_first(lab):
    (cell,) = cells(registry.protocol("digits-mlp"), ["oja"], [3], {})

    def die() -> None:
        raise Killed

    with pytest.raises(Killed):
        lab.run(cell, At(4, die, "training"), every=0.0)
    first, *_ = missing(lab.results, lab.cache, protocol="digits-mlp")[0]
    assert (names([first]), first.begun) == (["oja 3"], True)


@pytest.fixture
def call(lab, monkeypatch, capsys):
    lab.results.mkdir()

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hebbbench", "run", "--results", str(lab.results), *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


def stored(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.json"))


def test_how_long_all_takes_is_said_where_that_says_something(lab):
    def told(*seconds: float | None) -> str:
        found = [SimpleNamespace(seconds=each, begun=False) for each in seconds]
        return headline(found, lab.results)  # type: ignore[arg-type]

    assert "3 cells are missing" in told(60.0, 60.0, None)
    assert "about 2 min 00 s in all on the devices of earlier results, 1 of unknown length." in told(60.0, 60.0, None)
    assert "half of them up to about 2 min 00 s each on the devices" in told(60.0, 120.0, 1e9)


def test_the_command_lists_and_then_runs_what_is_missing(lab, call):
    narrow = ("--missing", "-p", "digits-mlp", "-r", "random", "-s", "0-1")
    code, out, err = call(*narrow, "--dry-run")
    assert (code, err, stored(lab.results)) == (0, "", [])
    assert f"2 cells are missing under {lab.results}, 2 of unknown length." in out
    assert out.index("digits-mlp · random · seed 0") < out.index("digits-mlp · random · seed 1")
    code, out, err = call(*narrow)
    assert (code, err) == (0, "")
    assert stored(lab.results) == ["digits-mlp/random/seed-0.json", "digits-mlp/random/seed-1.json"]
    assert all(item.problem is None for item in store.scan(lab.results))
    code, out, _ = call(*narrow)
    assert code == 0
    assert f"Nothing is missing under {lab.results}." in out


def test_one_bad_file_is_skipped_and_told(lab, call):
    narrow = ("--missing", "-p", "digits-mlp", "-r", "random", "-s", "0-1")
    path = lab.results / "digits-mlp" / "random" / "seed-0.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    code, out, err = call(*narrow, "--dry-run")
    assert re.search(r"digits-mlp · random · seed 0 +damaged", out)
    code, out, err = call(*narrow)
    assert (code, err) == (1, "")
    assert re.search(r"skipped: .*seed-0\.json is not valid JSON", out)
    assert stored(lab.results) == ["digits-mlp/random/seed-0.json", "digits-mlp/random/seed-1.json"]
    edited = path.with_name("seed-1.json")
    edited.write_text(edited.read_text().replace('"seed": 1', '"seed":  1'))
    code, _, err = call("-p", "digits-mlp", "-r", "random", "-s", "1")
    assert code == 2
    assert "was edited by hand. Delete it, and run the cell again" in err


def unreachable(spec: DatasetSpec, *_: object) -> None:
    raise DataError(f"{spec.hub_id} on the Hugging Face hub: it cannot be read.")


def test_cells_without_their_data_are_skipped_with_one_line(lab, call, monkeypatch):
    """Two protocols: one whose data are embedded, one whose data cannot be had."""
    planned = [*cells(registry.protocol("mnist-mlp"), ["random"], [0, 1], {})]
    planned += cells(registry.protocol("digits-mlp"), ["random"], [0], {})
    waiting = [Waiting(cell, False, None) for cell in planned]
    monkeypatch.setattr(backlog, "missing", lambda *_, **__: (waiting, ["p · r: the recipe does not fit"]))
    monkeypatch.setattr(sources, "read_hub", unreachable)
    code, out, err = call("--missing")
    assert (code, err) == (0, "")
    assert out.count("every cell on mnist is skipped: ") == 1
    assert "skipped: p · r: the recipe does not fit" in out
    assert stored(lab.results) == ["digits-mlp/random/seed-0.json"]
    _, out, _ = call("--missing", "--dry-run")
    assert out.count("to be downloaded, else skipped") == 2
    assert "mnist" in DATASETS
    assert not {item.name: item for item in data.status()}["mnist"].found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-r", "bp"), "--protocol is missing. Name a protocol and a rule, or let --missing choose."),
        (("-p", "digits-mlp"), "--rule is missing. Name a protocol and a rule, or let --missing choose."),
        (
            ("-p", "mnist-liuson", "-r", "bp", "--axis", "temperature=0.02"),
            "bp: not measured at temperature=0.02. Protocol 'mnist-liuson' varies temperature for liuson alone;",
        ),
        (("--missing", "-p", "digits-mpl"), "no protocol 'digits-mpl'. Did you mean 'digits-mlp'?"),
        (("--missing", "-r", "softheb"), "no rule 'softheb'. Did you mean 'softhebb'?"),
        (("--missing", "-p", "digits-mlp", "--axis", "width=3"), "has no axis 'width'"),
        (("--missing", "--axis", "dpeth=5"), "no protocol of the board takes --axis dpeth=5"),
        (("--missing", "--seed", "99"), "no board counts seed 99"),
        (("--missing", "--time-limit", "soon"), "'soon' is no stretch of time"),
        (("--missing", "--results", "nope"), "there is no results folder nope. Name one that exists with --results."),
        (
            ("--missing", "-p", "digits-mlp", "-r", "mine.py"),
            "no rule 'mine.py' from outside the registry. Run it by name: "
            "hebbbench run --protocol digits-mlp --rule mine.py --seed all",
        ),
    ],
)
def test_a_mistake_is_one_line(lab, monkeypatch, call, arguments, message):
    lab.rule("mine", "grad: return -grad")
    monkeypatch.chdir(lab.root)
    code, _, err = call(*arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
