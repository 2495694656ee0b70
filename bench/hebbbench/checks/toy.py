"""The check that a rule learns: better features than random weights on a task where any sensible rule finds some."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from hebbbench.checks.network import build_learner, toy_cell
from hebbbench.checks.subject import Failed, Subject
from hebbbench.rng import seed_torch

NOISE = 0.6
WIDTHS = {True: (8, 4), False: (4,)}
"""Units by whether the rule is end-to-end: such a rule must teach a layer behind another one."""
TRAINING = 240
STEPS = 150
BATCH = 16
SEEDS = (0, 1)
RATES = (0.1, 0.01, 0.001)
MARGIN = 0.1


@cache
def noisy_digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's zeros and ones, 8×8, centred, in noise: x (360, 64) and classes (360,).

    What tells the classes apart is also what varies most, so a rule without labels can find it; four random weight
    vectors see mostly noise.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits(n_class=2)
    source = torch.Generator().manual_seed(0)
    order = torch.randperm(len(bunch.target), generator=source)
    x = torch.from_numpy(bunch.images).flatten(1).float()[order] / 16
    x = x - x.mean(0)
    return x + NOISE * torch.randn(x.shape, generator=source), torch.from_numpy(bunch.target)[order].long()


def learns(subject: Subject) -> str:
    """A read-out of the trained body beats one of the same body untrained, at one of a few rates."""
    best = ""
    top = -1.0
    for rate in RATES:
        gains = [_accuracies(subject, rate, seed) for seed in SEEDS]
        before, after = (sum(values) / len(SEEDS) for values in zip(*gains, strict=True))
        told = f"{100 * after:.0f} % against {100 * before:.0f} % untrained, at rate {rate:g}"
        if after >= before + MARGIN:
            return told
        if after > top:
            top, best = after, told
    raise Failed(
        f"zeros against ones in noise: at best {best}, after {STEPS} steps at rates {RATES}. If the rule does not "
        "claim to learn features, say so: expected_failures = {'learns': 'the reason'}."
    )


def _accuracies(subject: Subject, rate: float, seed: int) -> tuple[float, float]:
    """Held-out accuracy of a least-squares read-out before and after training."""
    x, labels = noisy_digits()
    cell = toy_cell(subject.rule, {}, WIDTHS[subject.kind.end_to_end()], rate, seed)
    with torch.random.fork_rng(devices=[]):
        learner = build_learner(cell, x.shape[1], 2, torch.float32)
        before = _read_out(learner.features(x), labels)
        for step in range(STEPS):
            batch = torch.randint(TRAINING, (BATCH,), generator=torch.Generator().manual_seed(step))
            seed_torch(step)
            learner.step(x[batch], labels[batch], step, 0.0)
        features = learner.features(x)
    return before, _read_out(features, labels) if features.isfinite().all() else 0.0


def _read_out(features: Tensor, labels: Tensor) -> float:
    rows = torch.cat([features, torch.ones(len(features), 1)], dim=1).double()
    seen, wanted = rows[:TRAINING], F.one_hot(labels[:TRAINING]).double()
    ridge = 1e-3 * torch.eye(rows.shape[1], dtype=torch.float64)
    weights: Tensor = torch.linalg.solve(seen.T @ seen + ridge, seen.T @ wanted)
    return ((rows[TRAINING:] @ weights).argmax(1) == labels[TRAINING:]).double().mean().item()
