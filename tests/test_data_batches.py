"""Batches against torchvision, image by image."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as reference

from hebbbench.data import threads
from hebbbench.data.batches import Batches, order
from hebbbench.errors import DataError

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def _arrays(n=12, height=9, width=7, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, height, width, channels), dtype=np.uint8)
    return images, rng.integers(0, 5, n)


def _batches(images, labels, **options):
    channels = images.shape[3]
    settings = {"device": "cpu", "mean": MEAN[:channels], "std": STD[:channels], "layout": "image", **options}
    return Batches(images, labels, **settings)


def _expected(image, top=0, left=0, flip=False, pad=0):
    """torchvision's crop of the padded uint8 image, its flip, then its normalisation; (C, H, W)."""
    height, width, channels = image.shape
    x = torch.from_numpy(image.copy()).permute(2, 0, 1)
    x = reference.crop(reference.pad(x, [pad] * 4), top, left, height, width)
    x = reference.hflip(x) if flip else x
    return reference.normalize(x.float() / 255, MEAN[:channels], STD[:channels])


@pytest.mark.parametrize("channels", [1, 3])
def test_plain_batch(channels):
    images, labels = _arrays(channels=channels)
    images.setflags(write=False)
    index = torch.tensor([3, 0, 3, 11])
    batches = _batches(images, labels)
    x, y = batches.batch(index)
    expected = torch.stack([_expected(images[i]) for i in index])
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-6)
    assert x.shape == (4, channels, 9, 7)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert y.tolist() == labels[index.numpy()].tolist()
    assert y.dtype == torch.int64
    assert len(batches) == 12
    flat, _ = _batches(images, labels, layout="flat").batch(index)
    assert flat.is_contiguous()
    torch.testing.assert_close(flat, expected.permute(0, 2, 3, 1).reshape(4, -1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("height", "width", "channels", "pad"), [(9, 7, 3, 4), (5, 8, 1, 2), (4, 4, 3, 0)])
def test_crop_flip_is_torchvisions(height, width, channels, pad, seed):
    images, labels = _arrays(30, height, width, channels, seed)
    batches = _batches(images, labels, augment="crop-flip", pad=pad)
    index = order(30, torch.Generator().manual_seed(seed))
    top, left, flip = batches.draw(30, torch.Generator().manual_seed(seed + 1))
    x, y = batches.batch(index, torch.Generator().manual_seed(seed + 1))
    expected = torch.stack(
        [
            _expected(images[i], int(t), int(l), bool(f), pad)
            for i, t, l, f in zip(index, top, left, flip, strict=True)  # noqa: E741
        ]
    )
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-6)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert y.tolist() == labels[index.numpy()].tolist()


def test_every_placement_is_right():
    """All offsets and both flips of one image, at the ends of the stored memory too."""
    images, labels = _arrays(2)
    batches = _batches(images, labels, augment="crop-flip", pad=2)
    places = torch.cartesian_prod(torch.arange(5), torch.arange(5), torch.arange(2))
    for i in range(2):
        x, _ = batches._placed(torch.full((50,), i), torch.arange(50))
        expected = [_expected(images[i], int(a), int(b), bool(c), 2) for a, b, c in places]
        torch.testing.assert_close(x, torch.stack(expected), rtol=0, atol=1e-6)


def test_a_placement_is_told_as_it_is_drawn():
    images, labels = _arrays(9)
    batches = _batches(images, labels, augment="crop-flip")
    told = [draw.tolist() for draw in batches.draw(9, torch.Generator().manual_seed(5))]
    codes = torch.randint(162, (9,), generator=torch.Generator().manual_seed(5))
    assert told == [(codes // 18).tolist(), (codes // 2 % 9).tolist(), (codes % 2 == 1).tolist()]


@pytest.mark.parametrize(("numbers", "during"), [(threads.FEW, 1), (threads.FEW + 1, 2)])
def test_a_small_batch_is_made_by_one_thread_and_others_go_on_with_theirs(numbers, during):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with contextlib.suppress(ValueError), threads.one_for_few(numbers):
            assert torch.get_num_threads() == during
            raise ValueError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("augment", ["none", "crop-flip"])
def test_a_batch_is_the_same_with_one_thread_and_with_several(augment, monkeypatch):
    images, labels = _arrays(64, 16, 16)
    batches = _batches(images, labels, augment=augment)
    small = batches.batch(torch.arange(64), torch.Generator().manual_seed(1))[0]
    monkeypatch.setattr(threads, "FEW", 0)
    assert torch.equal(batches.batch(torch.arange(64), torch.Generator().manual_seed(1))[0], small)


@pytest.mark.parametrize("layout", ["image", "flat"])
@pytest.mark.parametrize("augment", ["none", "crop-flip"])
@pytest.mark.parametrize("few", [1, 9 * 7 * 3 * 5 * 2, 2**20])
def test_several_made_at_once_are_those_made_one_by_one(layout, augment, few, monkeypatch):
    monkeypatch.setattr("hebbbench.data.batches.FEW", few)
    batches = _batches(*_arrays(n=24), layout=layout, augment=augment)
    parts = torch.randperm(24, generator=torch.Generator().manual_seed(0)).split(5)

    def sources():
        return (torch.Generator().manual_seed(i) for i in range(len(parts)))

    made = list(batches.several(parts, sources()))
    assert len(made) == len(parts)
    for (x, y), part, source in zip(made, parts, sources(), strict=True):
        one, labels = batches.batch(part, source)
        assert torch.equal(x, one)
        assert torch.equal(y, labels)
        assert x.stride() == one.stride()
    for (x, _), part in zip(batches.several(parts), parts, strict=True):
        assert torch.equal(x, batches.plain(part)[0])
    assert not list(batches.several([]))


def test_several_are_made_with_as_few_gathers_as_there_is_room_for(monkeypatch):
    monkeypatch.setattr("hebbbench.data.batches.FEW", 9 * 7 * 3 * 5 * 2)
    batches = _batches(*_arrays(n=24))
    gathers = []
    plain = batches.plain
    monkeypatch.setattr(batches, "plain", lambda index: gathers.append(len(index)) or plain(index))
    list(batches.several(torch.arange(24).split(5)))
    assert gathers == [10, 10, 4]


def test_draws_are_uniform():
    images, labels = _arrays()
    batches = _batches(images, labels, augment="crop-flip")
    top, left, flip = batches.draw(16200, torch.Generator().manual_seed(0))
    counts = torch.bincount((top * 9 + left) * 2 + flip, minlength=162)
    assert len(counts) == 162
    # Chi-square with 161 degrees of freedom: below 240 but for one case in 10 000.
    assert float(((counts - 100.0) ** 2 / 100).sum()) < 240


def test_plain_never_augments():
    images, labels = _arrays()
    index = torch.arange(12)
    augmented = _batches(images, labels, augment="crop-flip")
    assert torch.equal(augmented.plain(index)[0], _batches(images, labels).plain(index)[0])
    assert not torch.equal(augmented.batch(index, torch.Generator())[0], augmented.plain(index)[0])


def test_same_generator_same_batch_and_layouts_agree():
    images, labels = _arrays()
    index = torch.arange(12)
    image = _batches(images, labels, augment="crop-flip")
    flat = _batches(images, labels, augment="crop-flip", layout="flat")
    first, _ = image.batch(index, torch.Generator().manual_seed(3))
    second, _ = flat.batch(index, torch.Generator().manual_seed(3))
    assert torch.equal(first.permute(0, 2, 3, 1).reshape(12, -1), second)


def test_order_is_a_permutation():
    first = order(100, torch.Generator().manual_seed(0))
    assert torch.equal(first.sort().values, torch.arange(100))
    assert torch.equal(first, order(100, torch.Generator().manual_seed(0)))
    assert not torch.equal(first, order(100, torch.Generator().manual_seed(1)))


def test_arrays_are_copied():
    images, labels = _arrays()
    batches = _batches(images, labels)
    before, _ = batches.plain(torch.arange(12))
    images[:] = 0
    assert torch.equal(batches.plain(torch.arange(12))[0], before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (0.5,)}, "mean has 1 values"),
        ({"std": (0.5, 0.5)}, "std has 2 values"),
        ({"std": (0.5, 0.0, 0.5)}, "greater than 0"),
        ({"layout": "rows"}, "layout is 'rows'"),
        ({"augment": "cutout"}, "augment is 'cutout'"),
        ({"pad": -1}, "pad is -1"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(DataError, match=message):
        _batches(*_arrays(), **options)


def test_bad_arrays_and_generator():
    images, labels = _arrays()
    with pytest.raises(DataError, match="float64"):
        _batches(images / 255, labels)
    with pytest.raises(DataError, match="one integer label"):
        _batches(images, labels[:3])
    with pytest.raises(DataError, match="augmentation needs a CPU generator, got none"):
        _batches(images, labels, augment="crop-flip").batch(torch.arange(3))
