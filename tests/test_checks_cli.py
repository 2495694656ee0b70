"""`hebbbench check` and `hebbbench new rule` from the shell, and the whole walk from an empty file to a result."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import forked
from hebbbench import registry
from hebbbench.checks.scaffold import new_rule
from hebbbench.errors import RuleError
from hebbbench.record import store


def hebbbench(*arguments: str, cwd: Path, code: int = 0) -> str:
    """Run the command line in a process of its own; its output."""
    status, out, err = forked.hebbbench(*arguments, cwd=cwd, environ={**os.environ, "OMP_NUM_THREADS": "1"}).wait()
    assert status == code, f"exit {status}\n{out}\n{err}"
    return out + err


def test_from_an_empty_folder_to_a_result(lab):
    folder = lab.root / "work"
    hebbbench("new", "rule", "winner", "--folder", str(folder), cwd=lab.root)
    source = folder / "winner.py"
    text = source.read_text()
    assert "hebb(y, pre) - decay(y, weight)" in text
    source.write_text(
        text.replace("hebb(y, pre) - decay(y, weight)", "hebb(y, pre) - decay(y * post, weight)").replace(
            "⟨y_k (x − w_k)⟩ ", "⟨y_k (x − u_k w_k)⟩"
        )
    )
    test = folder / "test_winner.py"
    status, out, _ = run_test(test)
    assert status == 1, out
    assert "the reference differ" in out
    test.write_text(test.read_text().replace("(x[n][i] - w[k][i])", "(x[n][i] - u[n][k] * w[k][i])"))
    status, out, _ = run_test(test)
    assert status == 0, out

    output = hebbbench("check", str(source), "--json", "report.json", cwd=folder)
    assert "1 checked, 0 with a failure." in output
    assert "reference_winner of test_winner.py" in output
    assert json.loads((folder / "report.json").read_text())["passed"] is True

    protocol = lab.protocol_file()
    results = folder / "results"
    hebbbench(
        "run", "--protocol", protocol, "--rule", str(source), "--results", str(results), "--device", "cpu", cwd=folder
    )
    (file,) = results.rglob("*.json")
    result = store.load(file)
    assert (result.rule.name, result.status) == ("winner", "ok")


def run_test(path: Path) -> tuple[int, str, str]:
    return forked.run_tests("-q", "-p", "no:cacheprovider", str(path), cwd=path.parent).wait()


def test_every_way_to_fail_exits_with_an_error(tmp_path):
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "broken.py").write_text("def")
    assert "file" in hebbbench("check", "empty.py", "broken.py", "--json", "report.json", cwd=tmp_path, code=1)
    assert json.loads((tmp_path / "report.json").read_text())["passed"] is False
    assert "no rule 'nosuch'" in hebbbench("check", "nosuch", cwd=tmp_path, code=2)
    assert "no rule file" in hebbbench("check", "nosuch.py", cwd=tmp_path, code=2)
    assert "nothing to check" in hebbbench("check", cwd=tmp_path, code=2)


def test_new_rule_refuses_to_overwrite(tmp_path):
    files = new_rule("mine", tmp_path)
    assert [path.name for path in files] == ["mine.py", "mine.yaml", "test_mine.py"]
    kept = files[0].read_text()
    files[2].unlink()
    with pytest.raises(RuleError, match=r"mine.py exists and is left as it is"):
        new_rule("mine", tmp_path)
    assert files[0].read_text() == kept
    assert not files[2].exists()


def test_a_new_rule_among_those_of_the_repository_brings_no_file_that_is_none(monkeypatch, tmp_path):
    (tmp_path / "known.py").write_text("")
    monkeypatch.setattr(registry, "_files", lambda kind: {"known": ("hebbbench.rules", tmp_path / "known.py")})
    assert [path.name for path in new_rule("mine", tmp_path / ".." / tmp_path.name)] == ["mine.py", "mine.yaml"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["known.py", "mine.py", "mine.yaml"]


@pytest.mark.parametrize("name", ["Mine", "my-rule", "1st", "", "_hidden", "class", "a b", "../up"])
def test_new_rule_refuses_a_name_that_can_be_no_rule(tmp_path, name):
    with pytest.raises(RuleError, match="cannot be a rule's name"):
        new_rule(name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["torch", "math", "pytest"])
def test_new_rule_refuses_the_name_of_a_module(tmp_path, name):
    with pytest.raises(RuleError, match=rf"'{name}' is the name of a module"):
        new_rule(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_new_rule_refuses_a_name_that_is_taken(tmp_path):
    with pytest.raises(RuleError, match=r"the name 'oja' belongs to .*oja\.py"):
        new_rule("oja", tmp_path)
