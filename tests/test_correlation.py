"""⟨a aᵀ⟩ of wide layers and few rows: its products are those of the matrix that is never written out."""

from __future__ import annotations

import pytest
import torch
from torch.func import vmap

import references
from hebbbench import Pre, Rule, correlation, registry
from hebbbench.plasticity import correlation as by_rows
from hebbbench.plasticity.correlation import Correlation, far_fewer_rows
from hebbbench.plasticity.signals import LinearPre
from hebbbench.world import Divided, shown_shares

WIDE = 1100


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def small_is_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of four units count as wide, and blocks have three units."""
    monkeypatch.setattr(by_rows, "LEAST", 4)
    monkeypatch.setattr(by_rows, "BLOCK", 3)


@pytest.mark.parametrize("rows", [1, 7, 275])
@pytest.mark.parametrize("lower", [False, True])
def test_products_are_those_of_the_matrix_written_out(rows, lower):
    a, weight = drawn(rows, WIDE), drawn(WIDE, 5)
    found, matrix = correlation(a), a.T @ a / rows
    assert isinstance(found, Correlation)
    product = (found.tril() if lower else found) @ weight
    torch.testing.assert_close(product, (matrix.tril() if lower else matrix) @ weight)


def test_it_is_written_out_where_rows_are_many_or_units_few():
    assert isinstance(correlation(drawn(276, WIDE)), torch.Tensor)
    assert isinstance(correlation(drawn(2, 1023)), torch.Tensor)


def test_processes_that_share_the_rows_exchange_the_matrix():
    assert far_fewer_rows(drawn(7, WIDE))
    with shown_shares(Divided(0, 2)):
        assert not far_fewer_rows(drawn(7, WIDE))


def test_whatever_else_is_asked_of_it_is_asked_of_the_matrix(small_is_wide):
    a = drawn(2, 8)
    found, matrix = correlation(a), a.T @ a / 2
    assert isinstance(found, Correlation)
    assert found.shape == matrix.shape
    for ask in (
        lambda c: c - torch.eye(8, dtype=torch.float64),
        lambda c: 2 * c,
        lambda c: -c,
        lambda c: c.diagonal(),
        lambda c: c.tril(-1),
        lambda c: c[0, 1],
        lambda c: torch.linalg.eigvalsh(c),
        lambda c: drawn(3, 8) @ c,
        lambda c: torch.add(torch.ones(8, 8, dtype=torch.float64), other=c),
    ):
        torch.testing.assert_close(ask(found), ask(matrix))
    torch.testing.assert_close(found.tril() * 2, matrix.tril() * 2)


@pytest.mark.parametrize(("rule", "given"), [("hpca", {"activity": "relu", "scaled": True}), ("subspace", {})])
def test_rules_agree_with_their_references(rule, given, small_is_wide):
    x, weight = drawn(2, 6), drawn(8, 6)
    ours = registry.rule(rule)(**given).delta(LinearPre(x), x @ weight.T, weight)
    torch.testing.assert_close(ours, getattr(references, f"reference_{rule}")(x, weight, **given))


def test_a_stack_of_networks_may_ask(small_is_wide):
    class Whitening(Rule):
        def delta(self, pre: Pre, post: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
            return correlation(post).tril() @ weight

    post, weight = drawn(3, 2, 8), drawn(3, 8, 5)
    found = vmap(lambda u, w: Whitening().delta(None, u, w))(post, weight)
    torch.testing.assert_close(found, (post.mT @ post / 2).tril() @ weight)
