"""Writes docs/transcript.md by running the commands in it. Nothing is edited but this machine's paths."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = """\
# A terminal session

Written by `python docs/make_transcript.py`, which runs these commands; times are those of the machine it ran on.
"""
SESSION = [
    ("The first cell.", ["hebbbench run --protocol digits-mlp --rule ghl"]),
    ("A finished cell is not run twice.", ["hebbbench run --protocol digits-mlp --rule ghl"]),
    ("What there is.", ["hebbbench list rules", "hebbbench list protocols"]),
    ("One rule and one protocol in full.", ["hebbbench show rule softhebb", "hebbbench show protocol digits-mlp"]),
    (
        "What a step costs: of one rule layer by layer, of several a line each.",
        [
            "hebbbench cost --protocol digits-deephebb --rule ghl",
            "hebbbench cost --protocol digits-deephebb --rule bp --rule softhebb --rule random",
        ],
    ),
    (
        "The README's rule of twenty lines, beside a network that learns nothing.",
        ["cat winner.py", "hebbbench run --protocol digits-mlp --rule winner.py --rule random --seed 0-1"],
    ),
    (
        "Searching a learning rate on the validation split.",
        ["hebbbench tune --protocol digits-mlp --rule winner.py --try optimizer.lr=0.01,0.1,1 --seeds 1"],
    ),
    ("A name that does not exist.", ["hebbbench run --protocol digits-mlp --rule gh1"]),
    ("The files that were written.", ["hebbbench validate --results runs", "find runs -name '*.json'"]),
]


def main() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rule = readme.partition("<!-- file: winner.py -->\n```python\n")[2].partition("```\n")[0]
    parts = [HEAD]
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "winner.py").write_text(rule, encoding="utf-8")
        for title, commands in SESSION:
            shown = "".join(f"$ {command}\n{run(command, scratch)}\n" for command in commands).rstrip("\n")
            parts.append(f"## {title}\n\n```text\n{shown}\n```\n")
    (ROOT / "docs" / "transcript.md").write_text("\n".join(parts), encoding="utf-8")


def run(command: str, folder: str) -> str:
    """What the command prints in `folder`, and its exit status if that is not 0."""
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HEBBBENCH_CACHE": str(Path(folder) / ".cache"),
        "COLUMNS": "100",
    }
    done = subprocess.run(
        command, shell=True, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    text = "\n".join(line.rstrip() for line in done.stdout.splitlines())
    status = f"\n(exit status {done.returncode})" if done.returncode else ""
    return f"{text}{status}\n".replace(os.path.realpath(folder), "PATH").replace(str(ROOT), "PATH/hebbbench")


if __name__ == "__main__":
    main()
