"""The linear probe and what it stands on: a frozen body, its statistics, its features, one read-out for all."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from conftest import At, Lab
from hebbbench.data import load, split_indices
from hebbbench.data.batches import Batches
from hebbbench.progress import Silent
from hebbbench.sections import Probe
from hebbbench.training import features as extraction
from hebbbench.training import probing
from hebbbench.training.features import STATISTICS_BATCH, estimate_statistics, extract, statistics_kept
from hebbbench.training.learner import Learner
from hebbbench.training.network import batch_norms
from hebbbench.training.probe import Labelled, LinearProbe, draws, drop, fit, hits, standardise
from pretended import Tape, pretended_cuda

CPU = torch.device("cpu")


def spec(**changes) -> Probe:
    return Probe.model_validate({"epochs": 10, "batch_size": 32, "lr": 0.01, "statistics_samples": 0, **changes})


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dropped_out(x: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    return drop(x, probability, draws(x, probability, generator))


def trained(data: Labelled, classes: int, seed: int = 0, **changes) -> LinearProbe:
    probe = LinearProbe(spec(**changes), data.features.shape[1], classes, seed, CPU)
    for _ in range(probe.spec.epochs):
        fit(probe, data, None, Silent())
    return probe


@pytest.fixture
def blobs() -> Labelled:
    """400 samples in four classes that planes part with room to spare."""
    labels = torch.arange(4).repeat(100)
    centres = torch.eye(4, 6) * 5
    return Labelled(centres[labels] + 0.3 * torch.randn(400, 6, generator=source(1)), labels)


# Learning


def test_linearly_separable_classes_are_parted(blobs):
    assert trained(blobs, 4, epochs=20).accuracy(blobs) > 0.995


def test_random_labels_are_met_at_chance_on_unseen_samples():
    features, labels = torch.randn(4000, 8, generator=source(2)), torch.randint(4, (4000,), generator=source(3))
    seen, unseen = Labelled(features[:2000], labels[:2000]), Labelled(features[2000:], labels[2000:])
    # Four standard deviations of a guess over 2000 samples.
    assert trained(seen, 4).accuracy(unseen) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 2000) ** 0.5)


def test_accuracy_counts_every_sample_once_over_chunks_of_any_length(blobs, monkeypatch):
    probe = trained(blobs, 4, epochs=1)
    predicted = probe.linear(blobs.features).argmax(1)
    expected = (predicted == blobs.labels).double().mean().item()
    for size in (1, 7, 400, 1000):
        monkeypatch.setattr("hebbbench.training.probe.SCORE_BATCH", size)
        assert probe.accuracy(blobs) == expected


def test_a_sample_is_a_hit_if_its_class_is_among_the_likeliest():
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0], [1.0, 3.0, 0.0, 2.0]])
    labels = torch.tensor([0, 1, 3])
    assert [hits(logits, labels, top).item() for top in (1, 2, 3, 4)] == [1, 2, 3, 3]


def test_top_five_is_measured_where_there_are_many_classes(lab, monkeypatch):
    assert not any("top5" in name for name in lab.run(lab.cell("bp")).metrics)
    monkeypatch.setattr("hebbbench.training.probing.MANY_CLASSES", 10)
    metrics = lab.run(lab.cell("bp")).metrics
    for name in ("probe.test", "end_to_end.test"):
        assert metrics[f"{name}.accuracy"].value < metrics[f"{name}.top5_accuracy"].value <= 1


def test_the_probe_repeats_its_bits_and_depends_on_its_seed_alone(blobs):
    torch.manual_seed(5)
    one = trained(blobs, 4, dropout=0.5).state_dict()["linear"]["weight"]
    torch.manual_seed(6)
    before = torch.get_rng_state()
    assert torch.equal(trained(blobs, 4, dropout=0.5).state_dict()["linear"]["weight"], one)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(trained(blobs, 4, seed=1, dropout=0.5).state_dict()["linear"]["weight"], one)


def test_training_leaves_the_features_alone(blobs):
    before = blobs.features.clone()
    trained(blobs, 4, dropout=0.5)
    assert torch.equal(blobs.features, before)


def test_a_probe_taken_up_again_goes_on_with_the_same_bits(blobs):
    whole = trained(blobs, 4, dropout=0.5, halve_at=[0.3, 0.6])
    parts = LinearProbe(whole.spec, 6, 4, 0, CPU)
    for _ in range(whole.spec.epochs):
        fit(parts, blobs, blobs, Silent())
        saved, parts = parts.state_dict(), LinearProbe(whole.spec, 6, 4, 0, CPU)
        parts.load_state_dict(saved)
    assert torch.equal(parts.linear.weight, whole.linear.weight)
    assert torch.equal(parts.linear.bias, whole.linear.bias)
    assert [epoch for epoch, _ in parts.curve] == list(range(1, 11))


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.5, "halve_at": [0.3, 0.6], "weight_decay": 1e-3}])
def test_steps_replayed_on_a_gpu_leave_the_same_in_pieces_too(blobs, changes):
    eager = trained(blobs, 4, **changes)
    with pretended_cuda() as device:
        there = Labelled(blobs.features.to(device), blobs.labels.to(device))
        probe = LinearProbe(eager.spec, 6, 4, 0, device)
        for _ in range(eager.spec.epochs):
            probe.train_epoch(there)
            assert probe._replayed.recording is not None
            saved, probe = probe.state_dict(), LinearProbe(eager.spec, 6, 4, 0, device)
            probe.load_state_dict(saved)
        torch.testing.assert_close(probe.linear.weight.cpu(), eager.linear.weight, rtol=1e-4, atol=1e-5)
    back = LinearProbe(eager.spec, 6, 4, 0, CPU)
    back.load_state_dict(saved)
    back.train_epoch(blobs)


def test_a_recording_that_fails_is_told_once_and_the_probe_goes_on(blobs, monkeypatch):
    eager, said = trained(blobs, 4), []
    with pretended_cuda() as device:
        monkeypatch.setattr(Tape, "record", Tape.refuse)
        there = Labelled(blobs.features.to(device), blobs.labels.to(device))
        probe = LinearProbe(eager.spec, 6, 4, 0, device, said.append)
        for _ in range(eager.spec.epochs):
            probe.train_epoch(there)
        torch.testing.assert_close(probe.linear.weight.cpu(), eager.linear.weight, rtol=1e-4, atol=1e-5)
    assert said == ["  the read-out's steps are not replayed but taken one operation at a time: out of graphs"]


def test_what_has_been_trained_on_can_be_let_go(blobs):
    with pretended_cuda() as device:
        there = Labelled(blobs.features.to(device), blobs.labels.to(device))
        probe = LinearProbe(spec(), 6, 4, 0, device)
        probe.train_epoch(there)
        features = weakref.ref(there.features)
        probe.release()
        del there
        gc.collect()
        assert features() is None


def test_the_rate_is_halved_after_each_given_fraction_of_the_epochs():
    probe = LinearProbe(spec(epochs=10, lr=0.8, halve_at=[0.2, 0.5, 0.9]), 2, 2, 0, CPU)
    found = []
    for probe.epoch in range(10):
        found.append(probe.rate())
    assert found == [0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.2, 0.1]


def test_the_protocols_fifty_epochs_are_halved_where_they_say():
    probe = LinearProbe(spec(epochs=50, lr=1.0, halve_at=[0.4, 0.6, 0.7, 0.8, 0.9]), 2, 2, 0, CPU)
    steps = []
    for probe.epoch in range(50):
        if not steps or probe.rate() != steps[-1][1]:
            steps.append((probe.epoch, probe.rate()))
    assert steps == [(0, 1), (20, 1 / 2), (30, 1 / 4), (35, 1 / 8), (40, 1 / 16), (45, 1 / 32)]


def test_every_epoch_trains_at_its_own_rate(blobs):
    probe = LinearProbe(spec(epochs=4, lr=0.4, halve_at=[0.5]), 6, 4, 0, CPU)
    used = []
    for _ in range(4):
        probe.train_epoch(blobs)
        used.append(probe.optimizer.param_groups[0]["lr"])
    assert used == [0.4, 0.4, 0.2, 0.2]


# Dropout


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.5, 0.9])
def test_dropout_drops_that_fraction_and_keeps_the_mean(probability):
    x = dropped_out(torch.ones(400, 1000), probability, source())
    share = (x == 0).double().mean().item()
    rounded = round(probability * 256) / 256
    assert abs(rounded - probability) <= 1 / 512
    assert share == pytest.approx(rounded, abs=5 * (rounded * (1 - rounded) / 400_000) ** 0.5)
    assert x.double().mean().item() == pytest.approx(1, abs=0.02)
    assert x.unique().tolist() == pytest.approx([0, 1 / (1 - rounded)])


def test_half_is_exact_so_what_is_kept_is_doubled():
    x = torch.randn(50, 33, generator=source(1))
    dropped = dropped_out(x.clone(), 0.5, source())
    kept = dropped != 0
    assert torch.equal(dropped[kept], 2 * x[kept])
    # Of a byte's 256 values exactly half lie below the threshold.
    assert (torch.arange(256).ge(round(0.5 * 256))).sum() == 128


def test_dropout_repeats_with_its_generator_and_differs_between_draws():
    state = source()
    first, second = (dropped_out(torch.ones(10, 30), 0.5, state) for _ in range(2))
    assert torch.equal(first, dropped_out(torch.ones(10, 30), 0.5, source()))
    assert not torch.equal(first, second)


def test_dropout_draws_entries_independently():
    kept = (dropped_out(torch.ones(4000, 16), 0.5, source()) != 0).double()
    correlations = torch.corrcoef(kept.T) - torch.eye(16)
    assert correlations.abs().max() < 5 / 4000**0.5


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (8, 1), (7, 9)])
def test_dropout_fits_any_number_of_entries(shape):
    assert set(dropped_out(torch.ones(shape), 0.5, source()).unique().tolist()) <= {0.0, 2.0}


def test_no_dropout_draws_nothing():
    state = source()
    before = state.get_state()
    x = torch.randn(3, 3, generator=source(1))
    assert torch.equal(dropped_out(x.clone(), 0.0, state), x)
    assert torch.equal(state.get_state(), before)


# Standardising


def test_features_get_zero_mean_and_unit_variance_on_the_training_split():
    train = torch.randn(500, 4, generator=source()) * torch.tensor([1.0, 10, 0.1, 3]) + torch.tensor([0.0, 5, -3, 100])
    later = train[:50].clone() + 1
    expected = (later - train.mean(0)) / train.std(0, correction=0)
    mean, scale = standardise(train, later)
    torch.testing.assert_close(train.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(train.var(0, correction=0), torch.ones(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(later, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(1 / scale, torch.tensor([1.0, 10, 0.1, 3]), atol=0, rtol=0.2)
    assert mean.shape == scale.shape == (4,)


def test_a_constant_feature_becomes_zero_not_a_division_by_zero():
    train = torch.stack([torch.full((20,), 0.3), torch.arange(20.0)], dim=1)
    other = train[:3] + 1
    standardise(train, other)
    assert torch.equal(train[:, 0], torch.zeros(20))
    assert torch.isfinite(train).all()
    assert torch.equal(other[:, 0], torch.zeros(3))


def test_features_that_are_all_constant_give_zeros():
    train = torch.full((20, 3), 7.0)
    standardise(train)
    assert torch.equal(train, torch.zeros(20, 3))


def test_standardising_against_a_split_without_samples_is_no_error():
    train = torch.randn(20, 3, generator=source())
    standardise(train, torch.empty(0, 3))
    torch.testing.assert_close(train.mean(0), torch.zeros(3), atol=1e-6, rtol=0)


# The frozen body


class Body:
    """A learner from a tiny cell and the training samples it would see."""

    def __init__(self, lab: Lab, base: str = "digits-mlp") -> None:
        self.cell = lab.cell("bp", lab.protocol(base))
        dataset = load("digits", cache=lab.cache)
        work = self.cell.work
        self.learner = Learner(self.cell, dataset.shape, dataset.classes, CPU)
        self.indices = torch.as_tensor(split_indices(dataset.train.labels, work.data.validation)[0])
        self.batches = Batches(
            dataset.train.images, dataset.train.labels, device=CPU, mean=work.data.mean, std=work.data.std,
            layout=self.learner.model.layout,
        )  # fmt: skip


@pytest.fixture
def body(lab: Lab) -> Body:
    return Body(lab)


def test_estimated_statistics_are_the_plain_average_over_batches_of_the_drawn_samples(body):
    from hebbbench.rng import generator

    samples = 1200
    estimate_statistics(body.learner, body.batches, body.indices, samples)
    order = torch.randperm(len(body.indices), generator=generator(body.learner.seed, "statistics"))[:samples]
    parts = [body.batches.plain(body.indices[part])[0] for part in order.split(STATISTICS_BATCH)]
    norm = body.learner.model.body.norm1
    assert len(parts) == 3
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean(0) for x in parts]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var(0, correction=1) for x in parts]).mean(0))


def test_estimating_leaves_momentum_mode_and_weights_as_they_were(body):
    learner = body.learner
    learner.step(*body.batches.plain(body.indices[:50]), 0, 0.0)
    momenta = [norm.momentum for norm in batch_norms(learner.model)]
    weights = {name: weight.clone() for name, weight in learner.model.named_parameters()}
    estimate_statistics(learner, body.batches, body.indices, 100)
    assert [norm.momentum for norm in batch_norms(learner.model)] == momenta
    assert not any(module.training for module in learner.model.modules())
    assert all(torch.equal(weight, weights[name]) for name, weight in learner.model.named_parameters())


def test_estimating_forgets_what_training_had_gathered_and_repeats_its_bits(body, lab):
    fresh = Body(lab).learner
    estimate_statistics(fresh, body.batches, body.indices, 300)
    with torch.no_grad():
        body.learner.model.train()
        body.learner.model.body(torch.full((10, 64), 50.0))
    estimate_statistics(body.learner, body.batches, body.indices, 300)
    assert body.learner.digest() == fresh.digest()


def test_no_samples_asked_for_keeps_the_running_statistics(body):
    before = body.learner.digest()
    estimate_statistics(body.learner, body.batches, body.indices, 0)
    assert body.learner.digest() == before


def test_kept_statistics_come_back_also_behind_an_error(body):
    before = body.learner.digest()

    def fail() -> None:
        with statistics_kept(body.learner):
            estimate_statistics(body.learner, body.batches, body.indices, 300)
            assert body.learner.digest() != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert body.learner.digest() == before


@pytest.mark.parametrize("base", ["digits-mlp", "digits-deephebb"])
def test_features_are_the_bodys_output_in_inference_mode(lab, base):
    body = Body(lab, base)
    indices = body.indices[:300]
    found = extract(body.learner, body.batches, indices, Silent(), lab.root / "scratch")
    model = body.learner.model.eval()
    with torch.no_grad():
        expected = model.body(body.batches.plain(indices)[0]).flatten(1)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad


def test_features_in_a_memory_mapped_file_are_the_same_and_leave_no_file(body, lab, monkeypatch):
    scratch = lab.root / "scratch"
    held = extract(body.learner, body.batches, body.indices, Silent(), scratch)
    assert not scratch.exists()
    monkeypatch.setattr(extraction, "_free_memory", lambda: 0)
    mapped = extract(body.learner, body.batches, body.indices, Silent(), scratch)
    assert scratch.exists()
    assert list(scratch.iterdir()) == []
    assert torch.equal(mapped, held)


def test_a_cell_whose_features_do_not_fit_in_memory_measures_the_same(lab, monkeypatch):
    cell = lab.cell("bp")
    plain = lab.run(cell)
    monkeypatch.setattr(extraction, "_free_memory", lambda: 0)
    assert lab.run(cell).measurement() == plain.measurement()


@pytest.mark.parametrize(("rule", "base"), [("bp", "digits-mlp"), ("softhebb", "digits-deephebb")])
def test_no_frozen_weight_gets_a_gradient_or_changes_while_probing(lab, monkeypatch, rule, base):
    learners = []
    weights = {}

    def freeze(learner, *arguments):
        learners.append(learner)
        for parameter in learner.model.parameters():
            parameter.grad = None
        weights.update({name: weight.clone() for name, weight in learner.model.named_parameters()})
        estimate_statistics(learner, *arguments)

    monkeypatch.setattr(probing, "estimate_statistics", freeze)
    result = lab.run(lab.cell(rule, lab.protocol(base)))
    (learner,) = learners
    model = learner.model
    assert weights
    assert all(torch.equal(weight, weights[name]) for name, weight in model.named_parameters())
    assert all(weight.grad is None for weight in model.parameters())
    # Statistics of training stand again, so the digest recorded before probing is the body's still.
    assert learner.digest() == result.weights


def test_the_networks_own_read_out_is_scored_with_the_statistics_of_training(lab, monkeypatch):
    plain = lab.run(lab.cell("bp"))
    other = lab.run(lab.cell("bp", lab.protocol("digits-mlp", {"probe.statistics_samples": 3})))
    for split in ("validation", "test"):
        name = f"end_to_end.{split}.accuracy"
        assert other.metrics[name] == plain.metrics[name]
    assert other.metrics["probe.train.accuracy"] != plain.metrics["probe.train.accuracy"]


def test_the_probe_reports_every_epoch(lab):
    seen = At(phase="linear probe")
    lab.run(lab.cell("bp"), seen)
    assert seen.count == 3
