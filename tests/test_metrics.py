"""Every metric against a naive loop written from its definition, and at values known without computing."""

from __future__ import annotations

import math

import pytest
import torch

from hebbbench.metrics.correlation import neuron_correlation
from hebbbench.metrics.direction import cosine, sign_agreement
from hebbbench.metrics.gini import gini, step_size
from hebbbench.metrics.norms import weight_norms
from hebbbench.metrics.rank import effective_rank
from hebbbench.metrics.units import activation_dead, update_dead, weight_dead, win_dead


@pytest.fixture
def source() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# Gini


def test_gini_is_the_mean_difference_over_twice_the_mean(source):
    a = torch.rand(37, generator=source) ** 3
    pairs = sum(abs(float(x) - float(y)) for x in a for y in a)
    assert gini(a) == pytest.approx(pairs / (2 * 37**2 * float(a.double().mean())), rel=1e-9)


@pytest.mark.parametrize("dead", [0, 3, 8])
def test_gini_of_a_share_of_zeros_beside_equal_values_is_that_share(dead):
    assert gini(torch.cat([torch.zeros(dead), torch.full((10 - dead,), 2.5)])) == pytest.approx(dead / 10)


def test_gini_knows_neither_scale_nor_order_and_has_no_value_without_any(source):
    a = torch.rand(50, generator=source)
    assert gini(7 * a.flip(0)) == pytest.approx(gini(a), rel=1e-6)
    assert gini(torch.zeros(5)) is None


def test_step_size_is_the_length_of_each_unit_s_update():
    assert step_size(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist() == [5.0, 0.0]


# Dead units


def test_units_dead_by_update_are_those_under_a_hundredth_of_the_largest_step():
    assert update_dead(torch.tensor([1.0, 0.5, 0.011, 0.009, 0.0])) == pytest.approx(2 / 5)
    assert update_dead(torch.zeros(3)) is None


def test_units_dead_by_weight_are_those_that_did_not_turn(source):
    first = torch.randn(4, 20, generator=source)
    last = first.clone()
    last[0] *= 5  # longer, not turned
    last[1] = torch.randn(20, generator=source)
    last[2] += 0.05 * first[2].norm() * torch.nn.functional.normalize(torch.randn(20, generator=source), dim=0)
    assert weight_dead(first, last) == pytest.approx(3 / 4)


def test_units_dead_by_activity_and_by_wins():
    y = torch.zeros(100, 5)
    y[:, 0] = 1.0
    y[:3, 1] = 2.0  # wins 3 of 100: over a tenth of an even 20
    y[0, 2] = 3.0  # wins once: under it
    y[:, 3] = 0.5  # never wins, always active
    assert activation_dead(y) == pytest.approx(1 / 5)
    assert win_dead(y) == pytest.approx(3 / 5)


def test_a_sample_that_moves_no_unit_has_no_winner():
    assert win_dead(torch.zeros(10, 4)) == 1.0


# Rank and correlation


def test_effective_rank_is_the_exponential_of_the_entropy_of_the_singular_values(source):
    x = torch.randn(60, 9, generator=source, dtype=torch.float64) * torch.arange(1, 10)
    sigma = torch.linalg.svdvals(x - x.mean(0))
    p = [float(s / sigma.sum()) for s in sigma]
    expected = math.exp(-sum(q * math.log(q) for q in p))
    assert effective_rank(x) == pytest.approx(expected, rel=1e-9)
    assert effective_rank(x[:5]) <= 4 + 1e-9  # centred, n samples span n − 1 directions


def test_effective_rank_counts_orthogonal_directions_of_equal_strength_and_ignores_the_mean():
    x = torch.cat([torch.eye(6), -torch.eye(6)]) + 100
    assert effective_rank(x) == pytest.approx(6, rel=1e-6)
    assert effective_rank(torch.ones(5, 3)) is None


def test_neuron_correlation_is_the_mean_over_pairs_of_units(source):
    y = torch.randn(40, 6, generator=source)
    y[:, 5] = 2.0  # does not vary
    rho = torch.corrcoef(y[:, :5].T)
    pairs = [abs(float(rho[j, k])) for j in range(5) for k in range(5) if j != k]
    assert neuron_correlation(y) == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)
    assert neuron_correlation(y[:, 4:]) is None


# Norms and directions


def test_weight_norms_are_over_units():
    found = weight_norms(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    assert (found.mean, found.sd, found.max) == pytest.approx((3.0, 2.0, 5.0))


def test_sign_agreement_leaves_zeros_out():
    delta = torch.tensor([1.0, -2.0, 0.0, 3.0, 1.0])
    descent = torch.tensor([0.5, 1.0, 1.0, 0.0, 2.0])
    assert sign_agreement(delta, descent) == pytest.approx(2 / 3)
    assert sign_agreement(delta, torch.zeros(5)) is None


def test_cosine_is_over_all_entries_and_has_no_value_for_a_zero():
    a, b = torch.tensor([[1.0, 2.0], [2.0, 0.0]]), torch.tensor([[2.0, 1.0], [0.0, 2.0]])
    assert cosine(a, b) == pytest.approx(4 / 9)
    assert cosine(a, -a) == -1.0
    assert cosine(a, torch.zeros(2, 2)) is None
