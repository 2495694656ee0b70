"""A rule whose equation is one kernel finds what it finds as torch's operations, here in Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

FUSED = {"anti_hebb", "bp", "ghl", "ghl_fa", "ghl_hebbian", "hebb", "oja", "sign", "softhebb", "swta_fh"}
"""Rules that are to be shown stand-ins alone."""

CLOSE = {"torch.float32": 1e-5, "torch.bfloat16": 2**-7}
"""Of the largest entry. The interpreter cuts a number off at bfloat16 where torch and a GPU round it."""

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="no Triton on this platform")


@pytest.fixture(scope="module")
def cases() -> list[dict[str, object]]:
    script = Path(__file__).with_name("fused_checks.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


def test_an_update_is_the_same_by_a_kernel(cases):
    rounds = {"halved"}  # an equation that rounds to bfloat16 itself
    close = {(case["rule"], case["dtype"]): CLOSE[case["dtype"]] for case in cases}
    close |= {(rule, dtype): CLOSE["torch.bfloat16"] for rule in rounds for dtype in CLOSE}
    far = [case for case in cases if not case["distance"] <= close[case["rule"], case["dtype"]]]
    assert not far


def test_rules_of_the_papers_need_no_more_than_stand_ins(cases):
    shown = {case["rule"] for case in cases if not case["fused"]}
    assert FUSED.isdisjoint(shown)
    assert {case["rule"] for case in cases} >= FUSED


def test_a_rule_that_needs_the_tensor_is_shown_it(cases):
    assert {"hpca", "kwta", "krotov", "overwriting", "in_place", "aliased"} <= {
        case["rule"] for case in cases if not case["fused"]
    }
