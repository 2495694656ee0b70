"""Batches of images decoded when they are used, by worker processes that run ahead of the device."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from hebbbench.errors import DataError
from hebbbench.rng import seed_torch
from hebbbench.world import ALONE, World

from .batches import WHOLE, Batches, Layout
from .encoded import EncodedSplit

WORKERS_VARIABLE = "HEBBBENCH_WORKERS"
AHEAD = 3
"""Batches that each worker may have ready."""

MARGIN = 256 / 224
"""In inference an image's shorter side is brought to this many crop sizes, and the middle is cut out."""

Order = tuple[list[int], list[int] | None]
"""Samples of a batch, and for augmented ones a seed for each."""


class Decoded:
    """Images decoded, cut to `size` × `size` and normalised; the methods are those of `Batches`.

    With augment "resized-crop-flip" a training image is a random part of 8 to 100 % of the area and an aspect of 3/4
    to 4/3, mirrored with probability 1/2; otherwise, and always in `plain`, the middle of the resized image. Each
    sample has a seed of its own, so numbers do not depend on how many workers there are.
    """

    def __init__(
        self,
        split: EncodedSplit,
        size: int,
        *,
        device: torch.device | str,
        mean: Sequence[float],
        std: Sequence[float],
        layout: Layout = "image",
        augment: str = "none",
        workers: int | None = None,
    ) -> None:
        if layout != "image" or augment not in ("none", "resized-crop-flip"):
            raise DataError(
                f"{split.where}: layout '{layout}' with augment '{augment}' is not to be had for images that are "
                "decoded as they are used. Choose an image layout, and augment none or resized-crop-flip."
            )
        self.split = split
        self.device = torch.device(device)
        self.augment = augment
        self.workers = worker_count() if workers is None else workers
        self._decoder = Decoder(split, size)
        self._labels = torch.from_numpy(split.labels.copy()).to(self.device)
        spread = torch.tensor(std, dtype=torch.float64)
        scale, shift = 1 / (255 * spread), -torch.tensor(mean, dtype=torch.float64) / spread
        self._scale, self._shift = (v.to(self.device, torch.float32).view(1, -1, 1, 1) for v in (scale, shift))

    def __len__(self) -> int:
        return len(self._labels)

    def labels(self, index: Tensor) -> Tensor:
        """y of the samples `index`, int64 (B,)."""
        return self._labels.index_select(0, index.to(self.device))

    def batch(
        self, index: Tensor, generator: torch.Generator | None = None, part: slice = WHOLE
    ) -> tuple[Tensor, Tensor]:
        """(x, y) of the samples `index`, int64 (B,), augmented if these batches are; only those of `part`.

        Decoded in this process. Seeds are drawn for all of `index`.
        """
        return self._ready(index[part], self._decoder[self._order(index, generator, part)])

    def plain(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """(x, y) of the samples `index`, int64 (B,), never augmented; decoded in this process."""
        return self._ready(index, self._decoder[self._order(index, None)])

    def ahead(
        self, parts: Sequence[Tensor], generators: Iterable[torch.Generator] | None, world: World = ALONE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """`batch` of each of `parts` with its generator, or `plain` without, prepared by the workers."""
        sources: Iterable[torch.Generator | None] = generators if generators is not None else [None] * len(parts)
        orders = [
            self._order(part, source, world.part(len(part))) for part, source in zip(parts, sources, strict=False)
        ]
        loader: Iterable[Any] = (
            torch.utils.data.DataLoader(
                self._decoder,  # type: ignore[arg-type]
                sampler=orders,
                batch_size=None,
                num_workers=min(self.workers, len(orders)),
                prefetch_factor=AHEAD,
                worker_init_fn=_leave_signals_to_the_parent,
                pin_memory=self.device.type == "cuda",
            )
            if self.workers and orders
            else map(self._decoder.__getitem__, orders)
        )
        for part, made in zip(parts, loader, strict=True):
            yield self._ready(part[world.begin(len(part))], made)

    def _order(self, index: Tensor, generator: torch.Generator | None, part: slice = WHOLE) -> Order:
        if self.augment == "none" or generator is None:
            return index[part].tolist(), None
        return index[part].tolist(), torch.randint(2**62, (len(index),), generator=generator)[part].tolist()

    def _ready(self, index: Tensor, made: Tensor | str) -> tuple[Tensor, Tensor]:
        if isinstance(made, str):
            raise DataError(made)
        x = made.to(self.device, non_blocking=True).to(torch.float32, memory_format=torch.channels_last)
        return x.mul_(self._scale).add_(self._shift), self.labels(index)


class Decoder:
    """What a worker does: an order in, uint8 (B, 3, size, size) out, or what is wrong as text."""

    def __init__(self, split: EncodedSplit, size: int) -> None:
        from torchvision.transforms import v2

        self.split = split
        self.size = size
        self._crop = v2.Compose([v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()])
        self._middle = v2.Compose([v2.Resize(round(size * MARGIN), antialias=True), v2.CenterCrop(size)])
        self._pixels = v2.PILToTensor()

    def __getitem__(self, order: Order) -> Tensor | str:
        samples, seeds = order
        made = torch.empty(len(samples), 3, self.size, self.size, dtype=torch.uint8)
        # The transforms draw from the global generator; in this process it is put back.
        with torch.random.fork_rng(devices=[]):
            for row, sample in enumerate(samples):
                try:
                    image = self.split.image(sample)
                except DataError as error:
                    return str(error)  # as text, or a worker's traceback would be wrapped around it
                if seeds is not None:
                    seed_torch(seeds[row])
                made[row] = self._pixels(self._middle(image) if seeds is None else self._crop(image))
        return made


def worker_count() -> int:
    """Processes that decode: HEBBBENCH_WORKERS, else one for every core this process may use, less its own."""
    text = os.environ.get(WORKERS_VARIABLE)
    if text is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, cores - 1)
    if not text.isdecimal():
        raise DataError(f"{WORKERS_VARIABLE} = '{text}' is not a number of processes; 0 decodes in the main one.")
    return int(text)


def ahead(
    batches: Any,
    parts: Sequence[Tensor],
    generators: Iterable[torch.Generator] | None = None,
    world: World = ALONE,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of `parts`, one after another: augmented with their generators, or plain without.

    What is decoded by workers is prepared while the device is busy; what lies on the device is gathered there. Of each
    batch only this process's share is made, and the batch is the one at hand in `world` until the next is asked for.
    """
    try:
        if isinstance(batches, Decoded):
            yield from batches.ahead(parts, generators, world)
        elif isinstance(batches, Batches) and world.size == 1:
            yield from batches.several(parts, generators)
        elif generators is None:
            for part in parts:
                yield batches.plain(part[world.begin(len(part))])
        else:
            for part, source in zip(parts, generators, strict=False):
                yield batches.batch(part, source, world.begin(len(part)))
    finally:
        world.end()


def _leave_signals_to_the_parent(_worker: int) -> None:
    """What stops a job or a terminal reaches all its processes; the parent writes a checkpoint first, and ends them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
