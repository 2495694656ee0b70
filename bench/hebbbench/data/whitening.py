"""ZCA whitening: images whose numbers are uncorrelated and of one variance, and which still look like images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from hebbbench.data.batches import WHOLE, Batches

CHUNK = 1000
"""Images whose products are summed up at once."""
LARGEST = 4096
"""Numbers in an image above which the matrix is refused: its decomposition takes the third power of them."""


class Whitening:
    """x → (x − m) Z with m = ⟨x⟩ and Z = (C + s·1)^(−1/2), C = ⟨(x − m)(x − m)ᵀ⟩, over all pixels and channels.

    Bell & Sejnowski 1997, Vision Research 37:3327; s smooths directions that hardly vary.

    Args:
        batches: what is whitened, with as many numbers d an image as fit a matrix (d, d).
        indices: of the images that m and C are taken from, (n,), never augmented.
        smoothing: s, in the units of x squared.
    """

    def __init__(self, batches: Batches, indices: Tensor, smoothing: float) -> None:
        parts = indices.split(CHUNK)
        size = math.prod(batches.shape)
        total = torch.zeros(size, dtype=torch.float64, device=batches.device)
        products = torch.zeros((size, size), dtype=torch.float64, device=batches.device)
        for part in parts:
            rows = _rows(batches.plain(part)[0]).double()
            total += rows.sum(0)
            products += rows.T @ rows
        mean = total / len(indices)
        # On the CPU, whatever the device: the decomposition's bits are then those of one library.
        covariance = (products / len(indices) - torch.outer(mean, mean)).cpu()
        variances, directions = torch.linalg.eigh(covariance)
        scales = (variances.clamp_min(0) + smoothing).rsqrt()
        self._mean = mean.float()
        self._matrix = ((directions * scales) @ directions.T).to(batches.device, torch.float32)

    def __call__(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) or rows (B, d), whitened, in the same layout and memory format."""
        rows: Tensor = (_rows(x) - self._mean) @ self._matrix
        if x.dim() == 2:
            return rows
        _, channels, height, width = x.shape
        return rows.view(-1, height, width, channels).permute(0, 3, 1, 2)


def _rows(x: Tensor) -> Tensor:
    return x if x.dim() == 2 else x.permute(0, 2, 3, 1).reshape(len(x), -1)


class WhitenedBatches:
    """Batches, whitened after whatever else is done to them; with the methods of `Batches`."""

    def __init__(self, batches: Batches, whitening: Whitening) -> None:
        self._batches = batches
        self._whitening = whitening
        self.device = batches.device

    def __len__(self) -> int:
        return len(self._batches)

    def labels(self, index: Tensor) -> Tensor:
        """y of the samples `index`, int64 (B,)."""
        return self._batches.labels(index)

    def batch(
        self, index: Tensor, generator: torch.Generator | None = None, part: slice = WHOLE
    ) -> tuple[Tensor, Tensor]:
        """(x, y) of the samples `index`, augmented if the batches are; only those of `part`."""
        x, y = self._batches.batch(index, generator, part)
        return self._whitening(x), y

    def several(
        self, parts: Sequence[Tensor], generators: Iterable[torch.Generator] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(x, y) of each of `parts`, as `batch` makes them with their generators, or `plain` without."""
        for x, y in self._batches.several(parts, generators):
            yield self._whitening(x), y

    def plain(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """(x, y) of the samples `index`, never augmented."""
        x, y = self._batches.plain(index)
        return self._whitening(x), y
