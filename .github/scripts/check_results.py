"""What a pull request may do to the record: add results. Nothing measured earlier is changed or removed.

    python .github/scripts/check_results.py BASE HEAD

Compares HEAD with its merge base with BASE, so what BASE gained meanwhile is not held against it. Prints Markdown and
exits 1 if there is a problem. With ALLOW_CHANGES=true (a maintainer's label) earlier results may be replaced or
removed, as they must be when a rule's equation or recipe changes. Needs git and no package.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import NamedTuple

PLACE = re.compile(r"results/[a-z0-9][a-z0-9_-]*/[A-Za-z_]\w*/([^/]+/)?seed-\d+\.json")
LARGEST = {"results": 256 * 1024, "rules": 64 * 1024, "protocols": 64 * 1024, "architectures": 64 * 1024}
PLAIN_FILE = "100644"
ABSENT = "000000"


class Change(NamedTuple):
    """One changed path: its new mode and content, and git's letter (A, M, D, T)."""

    path: str
    mode: str
    blob: str
    letter: str


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout


def changes(base: str, head: str) -> list[Change]:
    """Every path under the policed folders that differs between `head` and its merge base with `base`."""
    fork = git("merge-base", base, head).strip()
    fields = git("diff", "--raw", "-z", "--no-renames", "--no-abbrev", fork, head, "--", *LARGEST).split("\0")
    found = []
    for entry, path in zip(fields[::2], fields[1::2], strict=False):
        _, mode, _, blob, letter = entry.removeprefix(":").split(" ")
        found.append(Change(path, mode, blob, letter))
    return found


def problems(found: list[Change], allow_changes: bool) -> list[str]:
    """What is wrong with the changes, a line each."""
    lines = []
    for change in found:
        folder = change.path.split("/", 1)[0]
        if folder == "results" and change.letter != "A" and not allow_changes:
            verb = "removes" if change.letter == "D" else "changes"
            lines.append(f"{verb} an earlier result: {change.path!r}")
        if change.mode == ABSENT:
            continue
        if change.mode != PLAIN_FILE:
            lines.append(f"mode {change.mode} instead of {PLAIN_FILE} (a link or an executable): {change.path!r}")
            continue
        if folder == "results" and not PLACE.fullmatch(change.path):
            lines.append(f"not where a result belongs, results/PROTOCOL/RULE/seed-N.json: {change.path!r}")
        size = int(git("cat-file", "-s", change.blob))
        if size > LARGEST[folder]:
            lines.append(f"{size} bytes, at most {LARGEST[folder]} are accepted: {change.path!r}")
    return lines


def main() -> int:
    base, head = sys.argv[1:]
    allow_changes = os.environ.get("ALLOW_CHANGES") == "true"
    found = changes(base, head)
    results = [change for change in found if change.path.startswith("results/")]
    counts = {letter: sum(change.letter == letter for change in results) for letter in "AMD"}
    wrong = problems(found, allow_changes)
    print("## The record\n")
    print(f"Result files: {counts['A']} added, {counts['M']} changed, {counts['D']} removed.")
    if allow_changes and counts["M"] + counts["D"]:
        print("A maintainer allowed changes to earlier results.")
    print("\n".join(["", *(f"- {line}" for line in wrong)] if wrong else ["", "Nothing to object to."]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
