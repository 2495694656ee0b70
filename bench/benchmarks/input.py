"""Images per second of the input: of pixels on the device, against a DataLoader; of image files, for each core."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.steps import SHAPE
from benchmarks.timing import ratio, take_turns
from hebbbench import registry
from hebbbench.cell import cells
from hebbbench.data.batches import Batches
from hebbbench.data.decoding import Decoder, ahead
from hebbbench.data.encoded import EncodedSplit
from hebbbench.data.spec import dataset_spec
from hebbbench.training.learner import Learner
from hebbbench.training.network import architecture_layout

BATCH = 64
IMAGES = 10_000
FILES = 64


def pipeline(device: torch.device, wait: Callable[[], None]) -> dict[str, float]:
    """Images per second of batches of 64, with and without crop and flip."""
    source = np.random.default_rng(0)
    images = source.integers(0, 256, (IMAGES, *SHAPE), dtype=np.uint8)
    labels = source.integers(0, 10, IMAGES)
    rates = {}
    for augment in ("none", "crop-flip"):
        batches = Batches(
            images,
            labels,
            device=device,
            mean=[0.5] * 3,
            std=[0.5] * 3,
            layout="image",
            augment=augment,  # type: ignore[arg-type]
        )
        generator = torch.Generator().manual_seed(0)
        parts = torch.randperm(len(batches), generator=generator).to(device).split(BATCH)

        def read(batches: Batches = batches, generator: torch.Generator = generator, parts: Any = parts) -> None:
            for part in parts:
                batches.batch(part, generator)

        rates[augment] = len(batches) / statistics.median(take_turns({"read": read}, 3, wait)["read"])
    return rates


FED = (("digits-mlp", "softhebb"), ("mnist-mlp", "oja"), ("mnist-mlp", "bp"), ("cifar10-deephebb", "softhebb"))
"""Protocols and rules whose steps are short beside their batches."""
STEPS = 20


def shares(rounds: int, device: torch.device, wait: Callable[[], None]) -> dict[str, float]:
    """The time in which a step's batch is made over that of the step, the median over rounds."""
    found = {}
    for protocol, rule in FED:
        (cell,) = cells(registry.protocol(protocol), [rule], [0], {})
        data, shape = cell.work.data, dataset_spec(cell.work.data.dataset).shape
        learner = Learner(cell, shape, 10, device)
        source = np.random.default_rng(0)
        images = source.integers(0, 256, (IMAGES, *shape), dtype=np.uint8)
        form: dict[str, Any] = {"mean": data.mean, "std": data.std, "augment": data.augment}
        layout = architecture_layout(cell.work.architecture.name)
        batches = Batches(images, source.integers(0, 10, IMAGES), device=device, layout=layout, **form)
        parts = torch.randperm(IMAGES, device=device).split(cell.recipe.training.batch_size)[:STEPS]
        x, labels = batches.plain(parts[0])

        def make(batches: Batches = batches, parts: Any = parts) -> None:
            for _ in ahead(batches, parts, (torch.Generator() for _ in parts)):
                pass

        def step(learner: Learner = learner, x: torch.Tensor = x, labels: torch.Tensor = labels) -> None:
            for number in range(STEPS):
                learner.step(x, labels, number, 0.0)

        times = take_turns({"make": make, "step": step}, rounds, wait)
        found[f"{protocol} {rule}"] = ratio(times, "make", "step")
    return found


def loader_rate(workers: int = 2) -> float | None:
    """Images per second of a DataLoader that crops, flips and normalises with torchvision; None without torchvision."""
    try:
        from torchvision import transforms
    except ImportError:
        return None
    from PIL import Image

    images = np.random.default_rng(0).integers(0, 256, (IMAGES // 5, *SHAPE), dtype=np.uint8)
    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    chain = transforms.Compose([*steps, transforms.Normalize([0.5] * 3, [0.5] * 3)])

    class Images(torch.utils.data.Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> torch.Tensor:
            image: torch.Tensor = chain(Image.fromarray(images[index]))
            return image

    loader = torch.utils.data.DataLoader(
        Images(), batch_size=BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )

    def read() -> None:
        for _ in loader:
            pass

    seconds = take_turns({"read": read}, 3, lambda: None)["read"]
    return len(images) / statistics.median(seconds)


def decode_rates() -> dict[str, float]:
    """Images per second of one process on one thread, from JPEG files of ImageNet's usual 500 × 375 pixels to 224².

    train: a random crop, resized and mirrored. inference: resized, the middle. decoding: neither, what Pillow needs.
    """
    from PIL import Image

    source = np.random.default_rng(0)
    files = []
    for _ in range(FILES):
        coarse = Image.fromarray(source.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        written = io.BytesIO()
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(written, "JPEG", quality=95)
        files.append(written.getvalue())
    length = np.array([len(file) for file in files])
    stream = np.frombuffer(b"".join(files), dtype=np.uint8)
    split = EncodedSplit(stream, np.cumsum(length) - length, length, np.zeros(FILES, dtype=np.int64), "benchmark")
    decoder, samples = Decoder(split, 224), list(range(FILES))
    cases = {
        "train": lambda: decoder[samples, samples],
        "inference": lambda: decoder[samples, None],
        "decoding": lambda: [split.image(sample) for sample in samples],
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = take_turns(cases, 3, lambda: None)
    torch.set_num_threads(threads)
    return {name: FILES / statistics.median(seconds) for name, seconds in times.items()}
