"""The documents are true: their commands run, their links lead somewhere, the workflows keep strangers' code apart.

A block of commands carries a mark in front of it:

    <!-- run: test -->      run here, in order, in one scratch folder a page; shortened by `SHORTER`
    <!-- run: ci NAME -->   run by .ci/run
    <!-- run: no, WHY -->   not run; the names in it are checked

`<!-- file: PATH -->` in front of a block writes it to that path in the scratch folder.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

import forked
import hebbbench
from hebbbench import registry
from hebbbench.board.readme import stale, top
from hebbbench.plan import gather

ROOT = Path(__file__).resolve().parents[1]
SHORTER = {"--seed all": "--seed 0", "optimizer.lr=0.01,0.03,0.1,0.3,1": "optimizer.lr=0.1 --seeds 1"}
FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]+?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block, with the comment in front of it."""

    mark: str
    language: str
    text: str


def tracked() -> list[Path]:
    """Every file of the repository, those not yet added included; ignored ones left out."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout, so which files belong to it is unknown")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[Block]:
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [Block(match["mark"] or "", match["language"], match["text"]) for match in found]


def commands(mark: str, page: Path) -> list[str]:
    return [line for block in blocks(page) if block.mark.startswith(mark) for line in block.text.splitlines()]


# Commands


def test_every_block_of_commands_says_where_it_runs():
    known = re.compile(r"run: (test|ci( \w+)?|no, .+)")
    for page in pages():
        for block in blocks(page):
            if block.language in ("bash", "sh"):
                assert known.fullmatch(block.mark), f"{page.name}: unmarked commands:\n{block.text}"


def test_every_command_names_rules_and_protocols_that_exist():
    named = {path for page in pages() for block in blocks(page) for path in [block.mark.removeprefix("file: ")]}
    checked = 0
    for line in [line for page in pages() for line in commands("run:", page)]:
        words = shlex.split(line)
        for option, word in pairwise(words):
            if option == "--protocol":
                assert word in (*registry.protocol_names(), *named), line
                checked += 1
            if option == "--rule":
                assert word in ("all", *registry.rule_names()) or Path(word).name in named, line
                checked += 1
    assert checked >= 10


def run(line: str, folder: Path, cache: Path) -> str:
    for long, short in SHORTER.items():
        line = line.replace(long, short)
    environment = {
        **os.environ,
        "HEBBBENCH_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("HEBBBENCH_RESULTS", None)
    program, *arguments = shlex.split(line, comments=True)
    assert program == "hebbbench", f"{line}: only hebbbench is run here"
    status, out, err = forked.hebbbench(*arguments, cwd=folder, environ=environment).wait()
    assert status == 0, f"$ {line}\n{out}{err}"
    return out


def test_a_shell_finds_the_command():
    """As for `run`, which goes without the shell."""
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    done = subprocess.run(["bash", "-c", "hebbbench --version"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"hebbbench {hebbbench.__version__}\n")


@pytest.fixture(scope="module")
def cache(tmp_path_factory, measured_cards) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    (folder / "cards").symlink_to(measured_cards)
    return folder


def write_files(page: Path, folder: Path) -> None:
    for block in blocks(page):
        if block.mark.startswith("file: "):
            path = folder / block.mark.removeprefix("file: ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")


@pytest.mark.slow
def test_the_readme_runs(tmp_path, cache):
    write_files(ROOT / "README.md", tmp_path)
    assert len((tmp_path / "winner.py").read_text(encoding="utf-8").splitlines()) <= 20
    lines = commands("run: test", ROOT / "README.md")
    assert any("--rule winner.py" in line for line in lines)
    for line in lines:
        out = run(line, tmp_path, cache)
    table = [line.split() for line in out.splitlines() if " seed 0 " in line]
    accuracy = {words[0]: float(words[3]) for words in table}
    assert accuracy["bp"] > accuracy["winner"] > accuracy["random"] > 10


@pytest.mark.slow
def test_contributing_runs(tmp_path, cache):
    write_files(ROOT / "README.md", tmp_path / "rules")
    write_files(ROOT / "CONTRIBUTING.md", tmp_path)
    for line in commands("run: test", ROOT / "CONTRIBUTING.md"):
        run(line, tmp_path, cache)
    assert (tmp_path / "results" / "digits-deephebb" / "winner" / "seed-0.json").is_file()
    assert "winner" in (tmp_path / "LEADERBOARD.md").read_text(encoding="utf-8")


def test_ci_runs_what_contributing_asks_for():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    done = [*commands("run: ci first", ROOT / "README.md"), *commands("run: ci tests", ROOT / "README.md")]
    done += re.findall(r'^step "\w+" (.+)$', script, re.MULTILINE)
    asked = commands("run: ci", ROOT / "CONTRIBUTING.md")
    assert len(asked) >= 5
    assert set(asked) <= set(done)


def test_ci_script_is_sound_shell():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


# Claims


def test_the_readme_shows_what_the_results_say():
    assert not stale(ROOT / "README.md", top(gather(ROOT / "results")))


@pytest.mark.parametrize("protocol", ["digits-mlp", "digits-deephebb"])
def test_on_the_digits_boards_backprop_and_sign_only_had_searches_of_one_size(protocol):
    recipes = {rule: registry.recipe(rule, protocol) for rule in registry.rule_names()}
    trials = {rule: recipe.search.trials for rule, recipe in recipes.items() if recipe and recipe.search}
    assert trials["bp"] == trials["sign"] == trials["ghl"]


def test_every_key_of_a_protocol_and_a_recipe_is_explained():
    from hebbbench import protocol, recipe, sections

    text = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("protocols.md", "recipes.md")}
    for model in (protocol.Protocol, sections.Data, sections.Training, sections.Optimizer, sections.Probe):
        for key in model.model_fields:
            assert f"`{key}`" in text["protocols.md"], f"docs/protocols.md does not explain {model.__name__}.{key}"
    for key in recipe.Recipe.model_fields:
        assert f"`{key}`" in text["recipes.md"], f"docs/recipes.md does not explain {key}"


def test_the_examples_in_the_documents_are_valid():
    from hebbbench.protocol import Protocol
    from hebbbench.recipe import RecipeFile
    from hebbbench.sections import Axis

    for block in [block for page in pages() for block in blocks(page) if block.language == "yaml"]:
        plain = yaml.safe_load(block.text)
        if "architecture" in plain:
            Protocol.model_validate(plain)
        elif "axes" in plain:
            assert all(Axis.model_validate(axis) for axis in plain["axes"].values())
        else:
            RecipeFile.model_validate(plain)


def test_every_protocol_has_its_place_among_the_papers_or_ours():
    named = set(re.findall(r"`([a-z0-9_-]+)`", (ROOT / "docs" / "papers.md").read_text()))
    protocols = set(registry.protocol_names())
    assert protocols - named == set()
    assert named - protocols - set(registry.rule_names()) == set()


def test_the_citation_has_the_version_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert {"cff-version", "message", "title", "authors", "references"} <= citation.keys()
    assert all(entry["title"] and entry["authors"] for entry in citation["references"])


# Links and paths


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_relative_link_leads_somewhere():
    checked = 0
    for page in [path for path in tracked() if path.suffix == ".md"]:
        for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path) if path else page
            assert file.exists(), f"{page.relative_to(ROOT)} links to {target}, which is not there"
            if anchor and file.suffix == ".md":
                assert anchor in anchors(file), f"{page.relative_to(ROOT)} links to {target}: no such heading"
            checked += 1
    assert checked >= 15


def test_no_file_names_a_place_on_one_machine():
    # Put together here, so that this file does not hold them.
    everywhere = ["/" + "work" + "/", "/tmp/" + "bash" + "_jobs"]
    beside = ".." + "/" + "shared"
    for path in tracked():
        text = path.read_bytes().decode("utf-8", "replace")
        forbidden = everywhere if path == ROOT / ".ci" / "run" else [*everywhere, beside]
        assert not [pattern for pattern in forbidden if pattern in text], path


# Workflows


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def load(path: Path) -> dict[str, Any]:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    workflow["on"] = workflow.pop(True)  # YAML 1.1 reads the key `on` as a truth value
    return workflow


def steps(workflow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request) -> dict[str, Any]:
    return load(request.param)


def test_the_workflows_are_there():
    assert {path.stem for path in WORKFLOWS} >= {"tests", "leaderboard", "rule-check", "rule-comment"}


def test_a_workflow_has_no_more_rights_than_it_needs(workflow):
    assert "pull_request_target" not in workflow["on"]
    assert workflow["permissions"] in ({}, {"contents": "read"})
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
        if "pull_request" in workflow["on"]:  # strangers' code runs
            assert job.get("permissions", {}) in ({}, {"contents": "read"})
    assert "secrets" not in yaml.safe_dump(workflow)


def test_no_credentials_are_left_where_strangers_code_runs(workflow):
    for step in steps(workflow):
        if "pull_request" in workflow["on"] and step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_no_text_of_a_stranger_becomes_shell(workflow):
    for step in steps(workflow):
        assert "${{" not in step.get("run", ""), "pass it through env: an expression in a script is pasted into it"


def test_actions_are_githubs_own_and_pinned(workflow):
    for step in steps(workflow):
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w-]+@(v\d+|[0-9a-f]{40})", step["uses"])


def test_the_comment_is_made_without_the_pull_requests_code():
    workflow = load(ROOT / ".github" / "workflows" / "rule-comment.yml")
    assert workflow["on"] == {"workflow_run": {"workflows": ["Rule check"], "types": ["completed"]}}
    assert load(ROOT / ".github" / "workflows" / "rule-check.yml")["name"] == "Rule check"
    assert workflow["jobs"]["comment"]["permissions"] == {"actions": "read", "pull-requests": "write"}
    assert not [step for step in steps(workflow) if "uses" in step]
    scripts = "\n".join(step["run"] for step in steps(workflow))
    assert not re.search(r"git (clone|fetch|checkout)|unzip|extract|pip |\beval\b", scripts)


HOSTILE = "fine\n```\n@everyone <img src=x> \u202e[link](http://x)\x1b[31m\n"


@pytest.mark.parametrize("content", [HOSTILE, "a" * 3_000_000, "\n" * 60_000], ids=["hostile", "huge", "long"])
def test_a_hostile_report_becomes_plain_text_of_limited_size(content, tmp_path):
    import json
    import zipfile

    with zipfile.ZipFile(tmp_path / "report.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../outside.md", "not to be unpacked")
        archive.writestr("report.md", content)
    workflow = load(ROOT / ".github" / "workflows" / "rule-comment.yml")
    (script,) = [step["run"] for step in steps(workflow) if step.get("shell") == "python"]
    environment = {"RUNNER_TEMP": str(tmp_path), "MARK": "<!-- x -->", "CONCLUSION": "success", "HEAD_SHA": "0" * 40}
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, **environment})
    body = json.loads((tmp_path / "comment.json").read_text(encoding="utf-8"))["body"]
    assert len(body) < 65_536
    before, inside, after = body.split("```")
    assert before.startswith("<!-- x -->\n**Rule check: success.**")
    assert inside.startswith("text\n")
    assert after == "\n"
    assert all(c == "\n" or c.isprintable() for c in inside)
    assert not (tmp_path.parent / "outside.md").exists()


# The record is policed


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A record with one result, on a branch `main`; the checkout is on `change`, and `main` has gone on."""
    monkeypatch.chdir(tmp_path)
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    git("init", "-q", "-b", "main")
    put("results/digits-mlp/bp/seed-0.json", "{}")
    put("rules/bp.py", "pass")
    commit()
    git("branch", "change")
    put("results/digits-mlp/bp/seed-1.json", "{}")
    commit()
    git("checkout", "-q", "change")
    return tmp_path


def git(*arguments: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], check=True, capture_output=True)


def put(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")


def commit() -> None:
    git("add", "-A")
    git("commit", "-q", "-m", "x")


def police(allow: bool = False) -> tuple[int, str]:
    script = ROOT / ".github" / "scripts" / "check_results.py"
    environment = {**os.environ, "ALLOW_CHANGES": "true" if allow else "false"}
    command = [sys.executable, str(script), "main", "change"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, done.stdout


def test_adding_results_and_rules_is_welcome(repository):
    put("results/digits-mlp/ghl/seed-0.json", "{}")
    put("results/digits-mlp/ghl/width=2,depth=3/seed-0.json", "{}")
    put("rules/ghl.py", "pass")
    commit()
    status, report = police()
    assert (status, "2 added, 0 changed, 0 removed" in report) == (0, True), report


@pytest.mark.parametrize("text", ["{ }", None], ids=["changed", "removed"])
def test_earlier_results_stay_as_they_are_without_the_label(repository, text):
    if text is None:
        git("rm", "-q", "results/digits-mlp/bp/seed-0.json")
    else:
        put("results/digits-mlp/bp/seed-0.json", text)
    commit()
    status, report = police()
    assert (status, "an earlier result: 'results/digits-mlp/bp/seed-0.json'" in report) == (1, True), report
    assert police(allow=True)[0] == 0


@pytest.mark.parametrize(
    ("path", "text", "why"),
    [
        ("results/digits-mlp/ghl/seed-0.json", "x" * 300_000, "bytes"),
        ("rules/ghl.py", "x" * 70_000, "bytes"),
        ("results/notes.txt", "x", "not where a result belongs"),
        ("results/digits-mlp/ghl/seed-x.json", "x", "not where a result belongs"),
        ("results/digits-mlp/ghl/a\n- b.json", "x", "not where a result belongs"),
    ],
)
def test_what_does_not_belong_is_refused(repository, path, text, why):
    put(path, text)
    commit()
    status, report = police()
    assert (status, why in report) == (1, True), report
    assert police(allow=True)[0] == 1


def test_a_link_is_refused(repository):
    Path("results/digits-mlp/bp/seed-2.json").symlink_to("/etc/passwd")
    commit()
    status, report = police()
    assert (status, "mode 120000" in report) == (1, True), report
