"""ZCA whitening against its definition, and the batches and cells that have it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hebbbench import registry
from hebbbench.data import dataset_spec, whitening
from hebbbench.data.batches import Batches
from hebbbench.data.whitening import WhitenedBatches, Whitening
from hebbbench.errors import ProtocolError
from hebbbench.training import apparatus
from hebbbench.training.coherence import check_whitening

SHAPE = (4, 3, 2)


def batches(layout="image", augment="none", count=600):
    """Images whose pixels are correlated."""
    source = np.random.default_rng(0)
    mixing = source.normal(size=(24, 24))
    images = 128 + 12 * (source.normal(size=(count, 24)) @ mixing)
    images = images.clip(0, 255).astype(np.uint8).reshape(count, *SHAPE)
    labels = source.integers(0, 5, count)
    form = {"device": "cpu", "mean": (0.4, 0.5), "std": (0.2, 0.3)}
    return Batches(images, labels, layout=layout, augment=augment, pad=1, **form)


def flat(x):
    return x.permute(0, 2, 3, 1).reshape(len(x), -1)


@pytest.mark.parametrize("smoothing", [1e-3, 0.1, 10.0])
def test_it_is_the_inverse_root_of_the_covariance(smoothing, monkeypatch):
    monkeypatch.setattr(whitening, "CHUNK", 70)
    own, index = batches(), torch.arange(50, 600)
    x = flat(own.plain(index)[0]).double().numpy()
    centred = x - x.mean(0)
    left, values, right = np.linalg.svd(centred, full_matrices=False)
    expected = left * (values / np.sqrt(values**2 / len(x) + smoothing)) @ right
    ours = flat(Whitening(own, index, smoothing)(own.plain(index)[0]))
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=2e-4 * np.abs(expected).max())


def test_without_smoothing_to_speak_of_numbers_are_uncorrelated_and_of_variance_one():
    own, index = batches(), torch.arange(600)
    x = flat(Whitening(own, index, 1e-9)(own.plain(index)[0])).double()
    torch.testing.assert_close(x.T @ x / len(x), torch.eye(24).double(), rtol=0, atol=1e-3)


def test_a_direction_without_variance_stays_finite():
    images = np.full((20, *SHAPE), 7, dtype=np.uint8)
    own = Batches(images, np.zeros(20, int), device="cpu", mean=(0, 0), std=(1, 1), layout="flat")
    assert Whitening(own, torch.arange(20), 1e-2)(own.plain(torch.arange(3))[0]).abs().max() < 1e-5


@pytest.mark.parametrize("augment", ["none", "crop-flip"])
def test_batches_are_whitened_behind_everything_else(augment):
    index = torch.tensor([3, 0, 3, 11, 7])
    own, rows = batches(augment=augment), batches("flat", augment)
    white = Whitening(rows, torch.arange(600), 0.01)
    ours = WhitenedBatches(own, white)
    x, y = ours.batch(index, torch.Generator().manual_seed(1))
    torch.testing.assert_close(x, white(own.batch(index, torch.Generator().manual_seed(1))[0]), rtol=0, atol=0)
    assert x.shape == (5, 2, 4, 3)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert y.tolist() == own.labels(index).tolist() == ours.labels(index).tolist()
    plain = ours.plain(index)[0]
    torch.testing.assert_close(flat(plain), WhitenedBatches(rows, white).plain(index)[0])
    several = list(ours.several([index[:2], index[2:]]))
    torch.testing.assert_close(torch.cat([x for x, _ in several]), plain)
    part = ours.batch(index, torch.Generator().manual_seed(1), slice(1, 3))[0]
    torch.testing.assert_close(part, x[1:3])
    assert len(ours) == 600


def test_a_protocol_without_it_keeps_its_identity(lab):
    plain = registry.protocol("digits-mlp")
    assert "whiten" not in plain.identity()["data"]
    assert lab.protocol("digits-mlp", {"data": {**plain.data.model_dump(), "whiten": 0.01}}).hash != plain.hash


def test_a_cell_learns_from_whitened_images_the_held_out_ones_left_out_of_account(lab, monkeypatch):
    seen = []

    def spy(batches, indices, smoothing):
        seen.append((len(indices), smoothing))
        return Whitening(batches, indices, smoothing)

    monkeypatch.setattr(apparatus, "Whitening", spy)
    monkeypatch.setattr(apparatus, "_whitenings", {})
    data = registry.protocol("digits-mlp").data.model_dump()
    white = lab.protocol("digits-mlp", {"data": {**data, "whiten": 0.01}})
    results = [lab.run(lab.cell("bp", protocol, seed=seed)) for protocol in (lab.protocol(), white) for seed in (0, 1)]
    assert [smoothing for _, smoothing in seen] == [0.01]
    assert seen[0][0] == results[2].data.samples.train
    assert all(result.status == "ok" for result in results)
    assert results[0].weights != results[2].weights
    assert results[2].metrics["probe.test.accuracy"].value > 0.2


@pytest.mark.parametrize("dataset", ["teacher-mlp", "stl10", "imagenette-160"])
def test_images_that_cannot_be_whitened_are_refused_before_anything_runs(lab, dataset):
    data = {**registry.protocol("digits-deephebb").data.model_dump(), "whiten": 0.01, "dataset": dataset}
    protocol = lab.protocol("digits-deephebb", {"data": data})
    with pytest.raises(ProtocolError, match=rf"data.whiten = 0.01 is for images .* those of '{dataset}'.*Leave it out"):
        check_whitening(protocol, dataset_spec(dataset))
