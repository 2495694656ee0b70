"""Rules on one line each: grouped by what their files ask for, with a short source and the measured badges."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import unicodedata
from functools import partial

import pytest

from board_fixtures import CARD
from hebbbench import cards, catalogue, checks, registry
from hebbbench.catalogue import CONTROLS, FEEDBACK, GUIDED, HEBBIAN, OBJECTIVES, PROCEDURES, entry, group, page, source
from hebbbench.errors import RuleError
from hebbbench.progress import Plain, Silent


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("    Δw = y x\n\nOja 1982, J. Math. Biology 15:267. Later Sanger 1989.", "Oja 1982"),
        ("Rumelhart, Hinton & Williams 1986. The reference row.", "Rumelhart 1986"),
        ("Journé, Garcia Rodriguez, Guo & Moraitis 2023, arXiv:2209.11883; theory", "Journé 2023"),
        ("Jimenez Nimmo & Mondragon 2025, arXiv:2501.17266.", "Jimenez Nimmo 2025"),
        ("Gupta, Ambikapathi & Ramasamy, ICASSP 2021, as Liuson 2023 runs it", "Gupta 2021"),
        ("with the thresholds of Miconi\n2021, arXiv:2107.01729", "Miconi 2021"),
        ('"Hebbian Learning with Global Direction", arXiv:2601.21367, equations 4 to 6.', "arXiv:2601.21367"),
        ("signSGD of Bernstein et al. 2018, arXiv:1802.04434", "Bernstein 2018"),
        ("Lagani, Amato, Falchi & Gennaro, FastHebb, arXiv:2207.03172", "arXiv:2207.03172"),
        ("Nøkland 2016", "Nøkland 2016"),
        ("Krotov and Hopfield, 2019", "Krotov 2019"),
        ("Weights stay as they were drawn.", "–"),
        ("Tested on 2000 images in the 1024 units of 2021.", "–"),
    ],
)
def test_the_source_is_the_first_reference_in_short(text, short):
    assert source(text) == short


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("def delta(self, grad): ...", CONTROLS),
        ("def delta(self, weight): ...", CONTROLS),
        ("feedback: ClassVar = 'exact'\n    def delta(self, grad): ...", CONTROLS),
        ("feedback: ClassVar = 'fixed'\n    def delta(self, grad): ...", FEEDBACK),
        ("feedback = 'direct'\n    def delta(self, grad): ...", FEEDBACK),
        ("def delta(self, pre, post, grad): ...", GUIDED),
        ("def delta(self, pre, error, state): ...", GUIDED),
        ("def delta(self, post, labels): ...", GUIDED),
        ("def delta(self, pre, post, weight, state): ...", HEBBIAN),
        ("def loss(self, post, grad): ...", OBJECTIVES),
        ("def step(self, network, input, labels): ...", PROCEDURES),
    ],
)
def test_a_rules_group_follows_from_its_equation(body, expected):
    assert group(ast.parse(f"import torch\n\nclass Mine(Rule):\n    tau: float = 1.0\n    {body}\n")) == expected


def test_known_rules_are_where_a_reader_looks_for_them():
    groups = {name: entry(name, None).group for name in ("bp", "random", "fa", "dfa", "ghl", "softhebb", "oja")}
    assert groups == {
        "bp": CONTROLS, "random": CONTROLS, "fa": FEEDBACK, "dfa": FEEDBACK, "ghl": GUIDED,
        "softhebb": HEBBIAN, "oja": HEBBIAN,
    }  # fmt: skip


def columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


@pytest.mark.parametrize("width", [100, 120, 220])
def test_every_rule_has_one_line_that_fits_the_terminal(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    names = registry.rule_names()
    lines = page([entry(name, None) for name in names]).splitlines()
    assert [line.split(" ")[0] for line in lines].count("oja") == 1
    assert {line.split(" ")[0] for line in lines} >= set(names)
    assert max(map(columns, lines)) <= width
    if width == 220:
        assert not [line for line in lines if "…" in line]


def test_without_a_terminal_nothing_is_cut(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    names = registry.rule_names()
    text = page([entry(name, None) for name in names])
    assert "…" not in text
    assert all(registry.summary(name) in text for name in names)


def test_a_line_holds_source_badges_and_the_number_of_recipes(monkeypatch, lab):
    monkeypatch.setenv("COLUMNS", "120")
    shown = page([entry("bp", cards.card("bp")), entry("oja", cards.card("oja")), entry("ghl", None)]).splitlines()
    (bp,), (oja,), (ghl,) = ([line for line in shown if line.startswith(f"{name} ")] for name in ("bp", "oja", "ghl"))
    assert bp.endswith(f"Rumelhart 1986    global        L B W · U O  {len(registry.recipes('bp'))}")
    assert "synapse" in oja
    assert "· · · · · O" in oja
    assert "not measured" in ghl


@pytest.fixture
def few(monkeypatch) -> list[str]:
    names = ["bp", "oja", "random"]
    monkeypatch.setattr(registry, "rule_names", lambda: names)
    return names


def test_cards_that_are_not_kept_are_measured_with_a_word_about_it(few, tmp_path, capsys):
    first = catalogue.rules(tmp_path, partial(Plain, stderr=True))
    told = capsys.readouterr()
    assert told.out == ""
    assert "measuring plausibility, once: done in" in told.err
    assert [item.name for item in first] == few
    assert [item.card for item in first] == [checks.measured_card(name) for name in few]
    assert catalogue.rules(tmp_path, partial(Plain, stderr=True)) == first
    assert capsys.readouterr() == ("", "")


def test_cards_that_cannot_be_kept_are_listed_with_one_warning(few, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    found = catalogue.rules(tmp_path / "file" / "cache", partial(Plain, stderr=True))
    assert None not in [item.card for item in found]
    told = capsys.readouterr().err
    assert told.count("warning") == 1
    assert f"the cache folder {tmp_path}/file/cache cannot be written: Not a directory. Choose another with" in told


def test_a_rule_that_cannot_be_measured_is_listed_with_a_warning(few, tmp_path, monkeypatch, capsys):
    def refuse(rule: str) -> None:
        raise RuleError(f"no card for {rule}.")

    monkeypatch.setattr(checks, "measured_card", refuse)
    assert [item.card for item in catalogue.rules(tmp_path, partial(Plain, stderr=True))] == [None] * 3
    assert "warning: no card for oja." in capsys.readouterr().err


def test_the_second_list_needs_no_torch(lab, monkeypatch):
    monkeypatch.setattr(checks, "measured_card", lambda rule: CARD)  # measuring all takes half a minute
    catalogue.rules(None, Silent)
    program = """
import sys
sys.argv = ["hebbbench", "list", "rules"]
from hebbbench.cli import main
try: main()
except SystemExit: pass
print([name for name in sys.modules if name.split(".")[0] in ("torch", "scipy")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "[]"
    assert {line.split(" ")[0] for line in done.stdout.splitlines()} >= set(registry.rule_names())
