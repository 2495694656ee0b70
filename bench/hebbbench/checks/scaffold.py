"""`hebbbench new rule NAME`: a rule that works, its recipe and its test, to be edited into another."""

from __future__ import annotations

import importlib.util
import keyword
import re
from pathlib import Path

from hebbbench import registry
from hebbbench.errors import HebbBenchError, RuleError
from hebbbench.files import write_atomic

RULE = '''"""{title}: each unit moves towards the inputs it responds to, as far as it wins them.

    Δw_k = ⟨y_k (x − w_k)⟩                     y = softmax(u / τ) over units,  u = w x

Grossberg 1976, Biol. Cybern. 23:121 (the instar); Nowlan 1990, NIPS 2, for the soft competition.
Written by `hebbbench new rule`: put your own equation, its source and what to know about it here.
"""

from pydantic import PositiveFloat
from torch import Tensor

from hebbbench import Pre, Rule, decay, hebb, soft_wta


class {title}(Rule):
    temperature: PositiveFloat = 1.0  # τ

    def delta(self, pre: Pre, post: Tensor, weight: Tensor) -> Tensor:
        y = soft_wta(post, self.temperature)
        return hebb(y, pre) - decay(y, weight)
'''

RECIPES = """# One recipe a protocol. `hebbbench tune -p digits-mlp -r {file} --try optimizer.lr=0.01,0.03,0.1`
# searches one on the validation split and prints it, with what the search cost.
recipes:
  digits-mlp:
    provenance: default
    source: "not searched yet"
    optimizer: {{name: sgd, lr: 0.03}}
"""

TEST = '''"""{title} is its paper's equation, written once more as plain loops, and passes the conformance suite."""

from __future__ import annotations

import math
from pathlib import Path

from hebbbench.checks import check, disagreement

RULE = str(Path(__file__).with_name("{name}.py"))


def reference_{name}(pre, post, weight, temperature):
    """Δw_ki = mean over rows n of y_nk (x_ni − w_ki); write yours from the paper, not from {name}.py.

    Parameters are signals and hyper-parameters, by name: pre (B, in), post (B, out), weight (out, in).
    """
    x, u, w = pre.tolist(), post.tolist(), weight.tolist()
    delta = [[0.0] * len(w[0]) for _ in w]
    for n in range(len(x)):
        powers = [math.exp(value / temperature) for value in u[n]]
        for k in range(len(w)):
            y = powers[k] / sum(powers)
            for i in range(len(w[k])):
                delta[k][i] += y * (x[n][i] - w[k][i]) / len(x)
    return delta


def test_the_rule_is_its_reference():
    assert disagreement(RULE, reference_{name}) is None


def test_the_rule_passes_every_check():
    report = check(RULE)
    assert report.passed, str(report)
'''


def new_rule(name: str, folder: Path) -> list[Path]:
    """Write NAME.py, NAME.yaml and test_NAME.py, none of which may exist.

    No test into the repository's own rules: every Python file there is a rule, and their tests stand elsewhere.

    Raises:
        RuleError: the name cannot be a rule's, or is taken, or a file is in the way.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise RuleError(
            f"'{name}' cannot be a rule's name. Use lower-case letters, digits and underscores, a letter first, and no "
            "word of Python's: it is a file name, a module and a row on the board."
        )
    if name in registry.rule_names():
        raise RuleError(f"the name '{name}' belongs to {registry.rule_path(name)}. Choose another.")
    if importlib.util.find_spec(name) is not None:
        raise RuleError(f"'{name}' is the name of a module of Python's, which {name}.py would hide. Choose another.")
    title = "".join(part.capitalize() for part in name.split("_"))
    files = {
        folder / f"{name}.py": RULE.format(title=title),
        folder / f"{name}.yaml": RECIPES.format(file=folder / f"{name}.py"),
    }
    if not registry.holds_rules(folder):
        files[folder / f"test_{name}.py"] = TEST.format(title=title, name=name)
    for path in files:
        if path.exists():
            raise RuleError(f"{path} exists and is left as it is. Remove it, or choose another name or --folder.")
    written: list[Path] = []
    try:
        for path, text in files.items():
            write_atomic(path, text.encode(), "--folder")
            written.append(path)
    except HebbBenchError:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return list(files)
