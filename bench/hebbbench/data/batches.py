"""Batches made on the device: the images stay there as uint8, a batch is one gather and one normalisation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hebbbench.data.threads import FEW, one_for_few
from hebbbench.errors import DataError

Layout = Literal["image", "flat", "tokens"]
Augment = Literal["none", "crop-flip", "resized-crop-flip"]
WHOLE = slice(None)


def _need_cpu(generator: torch.Generator | None, purpose: str) -> torch.Generator:
    """The generator, if it is one on the CPU: its draws are then the same whatever the device."""
    if generator is None or generator.device.type != "cpu":
        found = "none" if generator is None else f"one on {generator.device}"
        raise DataError(f"{purpose} needs a CPU generator, got {found}. Pass torch.Generator().")
    return generator


def order(n: int, generator: torch.Generator) -> Tensor:
    """A random permutation of 0 to n - 1, int64 (n,) on the CPU, the same for every device."""
    return torch.randperm(n, generator=_need_cpu(generator, "a random order"))


class Batches:
    """Images kept on `device` as uint8; a batch is one indexed gather, normalised (and augmented) there.

    `images` is uint8 (N, H, W, C), `labels` integers (N,); `mean` and `std` have one value per channel, in
    units of pixel / 255. A batch's x is float32 (pixel / 255 - mean) / std: layout "image" gives (B, C, H, W)
    in channels_last memory, "flat" gives (B, H * W * C). y is int64 (B,).

    Augmentation "crop-flip" takes an H x W window at a random place of the image surrounded by `pad` black
    pixels, mirrored with probability 1/2. The surrounded images and their mirror images are stored, so that
    every row of every window is one run of memory; this takes 2 (H + 2 pad) (W + 2 pad) C bytes per image.

    Raises DataError if shapes, types or settings do not fit each other.
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        labels: npt.NDArray[Any],
        *,
        device: torch.device | str,
        mean: Sequence[float],
        std: Sequence[float],
        layout: Layout,
        augment: Augment = "none",
        pad: int = 4,
    ) -> None:
        _check(images, labels, mean, std, layout, augment, pad)
        self.device = torch.device(device)
        self.layout = layout
        self.augment = augment
        self.shape: tuple[int, int, int] = images.shape[1:]
        self._pad = pad if augment == "crop-flip" else 0
        # np.array copies: a memory-mapped array is read-only, which a tensor cannot be.
        pixels = torch.from_numpy(np.array(images, order="C")).to(self.device)
        self._labels = torch.from_numpy(np.array(labels, dtype=np.int64)).to(self.device)
        height, width, _ = self.shape
        if augment == "crop-flip":
            self._rows = self._windows(pixels)
            self._line = torch.arange(height, device=self.device) * (self.shape[1] + 2 * pad)
            self._starts = self._start(*self._placement(torch.arange(2 * (2 * pad + 1) ** 2)))
        else:
            self._rows = pixels.view(len(pixels), -1)
        # x = pixel * scale + shift, with one value for each number of a flattened image.
        spread = torch.tensor(std, dtype=torch.float64)
        scale, shift = 1 / (255 * spread), -torch.tensor(mean, dtype=torch.float64) / spread
        self._scale = scale.to(self.device, torch.float32).repeat(height * width)
        self._shift = shift.to(self.device, torch.float32).repeat(height * width)

    def _windows(self, pixels: Tensor) -> Tensor:
        """Every run of W pixels of the padded images and their mirror images, as overlapping rows.

        The rows (runs, W * C) share the memory of (N, 2, H + 2 pad, W + 2 pad, C): run r starts at pixel r.
        """
        height, width, channels = self.shape
        pad = self._pad
        padded = pixels.new_zeros((len(pixels), 2, height + 2 * pad, width + 2 * pad, channels))
        inner = padded[:, :, pad : pad + height, pad : pad + width]
        inner[:, 0] = pixels
        inner[:, 1] = pixels.flip(2)
        runs = padded.numel() // channels - width + 1
        return padded.as_strided((runs, width * channels), (channels, 1))

    def __len__(self) -> int:
        return len(self._labels)

    def labels(self, index: Tensor) -> Tensor:
        """y of the samples `index`, int64 (B,)."""
        return self._labels.index_select(0, index.to(self.device))

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Placements of `size` augmented images: top and left int64, 0 to 2 pad, and flip bool; all (size,).

        As torchvision's: crop at (top, left) of the padded image, then mirror where `flip`. On the CPU.
        """
        return self._placement(self._codes(size, generator))

    def _codes(self, size: int, generator: torch.Generator) -> Tensor:
        """The numbers of `size` placements. One draw a sample: each of the placements is equally likely."""
        return torch.randint(2 * (2 * self._pad + 1) ** 2, (size,), generator=generator)

    def _placement(self, code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The placements of these numbers: top, left and flip."""
        places = 2 * self._pad + 1
        return code // 2 // places, code // 2 % places, code % 2 == 1

    def _start(self, top: Tensor, left: Tensor, flip: Tensor) -> Tensor:
        """The first run of a placement's window, counted from the first of its image."""
        height, width, _ = self.shape
        pad = self._pad
        # The mirror of the window at `left` is the window at 2 pad - left of the mirrored image.
        return (flip * (height + 2 * pad) + top) * (width + 2 * pad) + torch.where(flip, 2 * pad - left, left)

    def batch(
        self, index: Tensor, generator: torch.Generator | None = None, part: slice = WHOLE
    ) -> tuple[Tensor, Tensor]:
        """(x, y) of the samples `index`, int64 (B,), augmented if these batches are; only those of `part`.

        `generator`, on the CPU, is needed (else DataError) and used only for augmentation, drawn for all of `index`.
        """
        if self.augment == "none":
            return self.plain(index[part])
        code = self._codes(len(index), _need_cpu(generator, "augmentation"))
        return self._placed(index[part], code[part])

    def several(
        self, parts: Sequence[Tensor], generators: Iterable[torch.Generator] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(x, y) of each of `parts`, as `batch` makes them with their generators, or `plain` without.

        As many are made at once as one thread makes, because asking for a small one takes longer than making it.
        """
        each = max(1, FEW // (len(parts[0]) * len(self._scale))) if parts else 1
        sources = iter(() if generators is None else generators)
        for first in range(0, len(parts), each):
            some = parts[first : first + each]
            index = some[0] if len(some) == 1 else torch.cat(list(some))
            if generators is None or self.augment == "none":
                x, y = self.plain(index)
            else:
                drawn = (self._codes(len(part), _need_cpu(next(sources, None), "augmentation")) for part in some)
                x, y = self._placed(index, torch.cat(list(drawn)))
            sizes = [len(part) for part in some]
            yield from zip(x.split(sizes), y.split(sizes), strict=True)

    def plain(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """(x, y) of the samples `index`, int64 (B,), never augmented."""
        if self.augment == "none":
            index = index.to(self.device, non_blocking=True)
            return self._read(index, index)
        places = 2 * self._pad + 1
        centre = torch.full((len(index),), 2 * (self._pad * places + self._pad))
        return self._placed(index, centre)

    def _placed(self, index: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """(x, y) of the samples `index` at the placements of these numbers, which are on the CPU; both (B,)."""
        height, width, _ = self.shape
        pad = self._pad
        index = index.to(self.device, non_blocking=True)
        start = self._starts.index_select(0, code).to(self.device, non_blocking=True)
        first = index * (2 * (height + 2 * pad) * (width + 2 * pad)) + start
        return self._read(index, (first[:, None] + self._line).view(-1))

    def _read(self, index: Tensor, runs: Tensor) -> tuple[Tensor, Tensor]:
        """(x, y) of the samples `index`, whose pixels lie in these rows of what is stored."""
        with one_for_few(len(index) * len(self._scale)):
            rows = self._rows.index_select(0, runs).view(len(index), -1)
            return self._normalised(rows), self._labels.index_select(0, index)

    def _normalised(self, rows: Tensor) -> Tensor:
        """uint8 (B, H * W * C) to float32 in this object's layout."""
        # In place: a batch allocates one float buffer. Not `addcmul`, which rounds once where this rounds twice.
        x = rows.to(torch.float32).mul_(self._scale).add_(self._shift)
        if self.layout == "flat":
            return x
        return x.view(len(rows), *self.shape).permute(0, 3, 1, 2)


class Pairs:
    """A teacher's inputs and targets kept on `device`, with the methods of `Batches`.

    A batch's x is float32 (B, features), or int64 (B, length) for tokens; its y is float32 (B, outputs).
    """

    def __init__(self, inputs: npt.NDArray[Any], targets: npt.NDArray[np.float32], device: torch.device | str) -> None:
        self.device = torch.device(device)
        x = torch.from_numpy(np.array(inputs, order="C")).reshape(len(inputs), -1)
        self._x = (x if x.is_floating_point() else x.long()).to(self.device)
        self._y = torch.from_numpy(np.array(targets, order="C")).to(self.device)

    def __len__(self) -> int:
        return len(self._y)

    def labels(self, index: Tensor) -> Tensor:
        """y of the samples `index`."""
        return self._y.index_select(0, index.to(self.device))

    def batch(
        self, index: Tensor, generator: torch.Generator | None = None, part: slice = WHOLE
    ) -> tuple[Tensor, Tensor]:
        """(x, y) of the samples `index`, int64 (B,); only those of `part`."""
        return self.plain(index[part])

    def plain(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """(x, y) of the samples `index`, int64 (B,)."""
        index = index.to(self.device)
        return self._x.index_select(0, index), self._y.index_select(0, index)


def _check(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[Any],
    mean: Sequence[float],
    std: Sequence[float],
    layout: str,
    augment: str,
    pad: int,
) -> None:
    if images.ndim != 4 or images.dtype != np.uint8:
        raise DataError(f"batches need uint8 images (N, H, W, C), got {images.dtype} {images.shape}.")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise DataError(
            f"batches need one integer label for each of {len(images)} images, got {labels.dtype} {labels.shape}."
        )
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != images.shape[3]:
            raise DataError(f"{name} has {len(values)} values, expected one for each of {images.shape[3]} channels.")
    if not all(value > 0 for value in std):
        raise DataError(f"std is {list(std)}: each value must be greater than 0.")
    if layout not in ("image", "flat"):
        raise DataError(f"layout is '{layout}', expected 'image' or 'flat'.")
    if augment not in ("none", "crop-flip"):
        raise DataError(f"augment is '{augment}', expected 'none' or 'crop-flip' for images of one size.")
    if pad < 0:
        raise DataError(f"pad is {pad}, expected 0 or more pixels.")
