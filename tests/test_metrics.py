"""Every metric against a naive loop written from its definition, and at values known without computing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from hebbbench.metrics.activity import Activity
from hebbbench.metrics.correlation import neuron_correlation
from hebbbench.metrics.direction import cosine, sign_agreement, sign_consistency
from hebbbench.metrics.firing import Firing
from hebbbench.metrics.gini import gini, step_size
from hebbbench.metrics.norms import weight_norms
from hebbbench.metrics.rank import effective_rank
from hebbbench.metrics.units import activation_dead, update_dead, weight_dead, win_dead
from hebbbench.world import ALONE, Share, World


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


# Activity, as a network runs


class Shortcut(nn.Module):
    """u' = norm(u) + x, then the activation: what is behind a residual block's last convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, affine=False)
        self.skip, self.act = nn.Sequential(), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)) + self.skip(x))


class Centred(nn.Module):
    """An activation of somebody's own."""

    def forward(self, u: Tensor) -> Tensor:
        return (u - u.mean(1, keepdim=True)).relu()


def seen(body: nn.Module, layers: list[nn.Module], x: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(x, u, y) of each layer, in order, as `Activity` has them."""
    found: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
    look = Activity([body], layers, lambda index, *shown: found.update({index: shown}))
    body(x)
    look.remove()
    body(x + 1)  # nobody looks
    return [found[index] for index in range(len(layers))]


def test_a_layer_s_activity_is_what_its_activation_makes_of_its_output(source):
    body = nn.Sequential(
        nn.Linear(5, 4),
        nn.BatchNorm1d(4, affine=False),
        nn.Dropout(0.5),
        Centred(),
        nn.BatchNorm1d(4, affine=False),
        nn.Linear(4, 4),
        nn.Linear(4, 2),
    ).eval()
    x = torch.randn(7, 5, generator=source)
    (x1, u1, y1), (x2, u2, y2), (_, u3, y3) = seen(body, [body[0], body[5], body[6]], x)
    assert torch.equal(x1, x)
    assert torch.equal(u1, body[0](x))
    assert torch.equal(y1, body[:4](x))  # and not what the next layer's normalisation makes of that
    assert torch.equal(x2, body[:5](x))
    assert torch.equal(y2, u2)  # the next linear map comes first
    assert torch.equal(y3, u3)  # and here the end
    assert not y1.requires_grad


def test_rows_of_a_convolution_are_samples_and_positions_and_a_shortcut_counts(source):
    body = nn.Sequential(Shortcut(), nn.Conv2d(3, 2, 1), nn.MaxPool2d(2), nn.ReLU()).eval()
    x = torch.randn(2, 3, 4, 4, generator=source)
    (_, _, y), (_, u, pooled) = seen(body, [body[0].conv, body[1]], x)
    expected = body[0](x)
    assert y.shape == (2 * 16, 3)
    assert torch.equal(y[16 + 4 * 2 + 3], expected[1, :, 2, 3])
    assert torch.equal(pooled[16 + 4 * 2 + 3], u[1, :, 2, 3])  # where the shape changes first, the potential


def convolution() -> tuple[nn.Module, Tensor]:
    """Three channels, relu of x, −x and 0, of 2 × 2 pixels; one image has a pixel above 0, and 29 have none."""
    conv = nn.Conv2d(1, 3, 1, bias=False)
    conv.weight.data = torch.tensor([1.0, -1.0, 0.0]).view(3, 1, 1, 1)
    x = torch.full((30, 1, 2, 2), -1.0)
    x[0, 0, 1, 0] = 2.0
    return nn.Sequential(conv, nn.ReLU(), nn.Flatten()), x


def test_a_channel_is_dead_over_samples_and_positions():
    body, x = convolution()
    firing = Firing(body, [body[0]], ALONE, most=30)
    for part in x.split(7):
        body(part)
    # Active: x at one position, −x everywhere else, 0 nowhere. An even split is 120 / 3 = 40 wins, a tenth of it 4.
    assert firing.dead(30) == {0: (pytest.approx(1 / 3), pytest.approx(2 / 3))}
    assert firing.dead(2) == {0: (pytest.approx(2 / 3), pytest.approx(2 / 3))}  # the last two do not have the pixel
    x[:5, 0, 1, 0] = 2.0  # five wins in the samples that are shown next
    body(x)
    assert firing.dead(30) == {0: (pytest.approx(1 / 3), pytest.approx(1 / 3))}
    firing.stop()
    cost = firing.seconds
    body(-x)
    assert firing.seconds == cost
    assert firing.dead(30) == {0: (pytest.approx(1 / 3), pytest.approx(1 / 3))}


def test_no_more_samples_are_remembered_than_are_asked_for_and_a_layer_that_did_not_run_is_not_there():
    body, x = convolution()
    firing = Firing(body, [body[0], nn.Linear(2, 2)], ALONE, most=20)
    for part in x.split(7):
        body(part)
    assert firing.dead(30) == {0: (pytest.approx(2 / 3), pytest.approx(2 / 3))}  # the first has dropped out


class Two(World):
    """The first of two processes, of which the other saw the same."""

    size = 2
    share = Share(0, 30, 60)

    def sum_in_place(self, values: list[Tensor]) -> None:
        for value in values:
            value *= 2


@pytest.mark.parametrize(("images", "dead"), [(3, 2 / 3), (5, 1 / 3)])
def test_counts_of_a_divided_batch_are_those_of_all_of_it(images, dead):
    body, x = convolution()
    x[:images, 0, 1, 0] = 2.0  # in both parts, so 6 or 10 wins of 240 rows: a tenth of an even 80 is 8
    firing = Firing(body, [body[0]], Two(), most=60)
    body(x)
    assert firing.dead(60) == {0: (pytest.approx(1 / 3), pytest.approx(dead))}


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


def test_signs_are_consistent_where_a_weight_always_moves_the_same_way():
    steps = torch.tensor([[5.0, 1.0, 0.1, 0.0], [3.0, -9.0, 0.1, 0.0], [1.0, 1.0, -8.0, 0.0], [2.0, -1.0, 0.0, 0.0]])
    assert sign_consistency(steps.sign().sum(0), 4) == pytest.approx((1 + 0 + 1 / 4 + 0) / 4)
    assert sign_consistency(-steps.sign().sum(0), 4) == pytest.approx((1 + 0 + 1 / 4 + 0) / 4)


def test_chance_level_of_the_consistency_of_signs(source):
    signs = torch.randint(0, 2, (400, 20_000), generator=source).mul_(2).sub_(1).sum(0)
    assert sign_consistency(signs, 400) == pytest.approx(math.sqrt(2 / (math.pi * 400)), rel=0.03)
