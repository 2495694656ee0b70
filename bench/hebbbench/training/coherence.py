"""Whether what a protocol says of its data, its loss and its network goes together, told before anything runs."""

from __future__ import annotations

import math

from hebbbench.data import DatasetSpec, dataset_spec
from hebbbench.data.whitening import LARGEST
from hebbbench.errors import ProtocolError
from hebbbench.protocol import Protocol
from hebbbench.training.network import architecture_layout


def check_work(work: Protocol) -> None:
    """Hold a protocol, at a value of each axis, against the datasets that it names.

    Raises:
        ProtocolError: no such dataset, no labels, a cut, a normalisation, an augmentation or a loss that does not suit
            its samples, or unlabelled images that are not like them.
    """
    spec = dataset_spec(work.data.dataset)
    where = f"protocol '{work.name}':"
    if not spec.classes:
        raise ProtocolError(
            f"{where} data.dataset = '{spec.name}' has no labels, so nothing can be scored. "
            "Give it as data.unlabelled, beside a dataset with labels."
        )
    if work.data.validation >= spec.counts["train"]:
        raise ProtocolError(
            f"{where} data.validation = {work.data.validation} of {spec.counts['train']} training samples of "
            f"'{spec.name}' leaves none to learn from. Choose 0 to {spec.counts['train'] - 1}."
        )
    _check_normalisation(work, spec, where)
    _check_augmentation(work, spec, where)
    check_whitening(work, spec)
    _check_scoring(work, spec, where)
    if work.alignment is not None and work.precision != "float32":
        raise ProtocolError(
            f"{where} precision = '{work.precision}' with alignment: cosines of updates are measured in float32. "
            "Leave precision out, or alignment."
        )
    if work.data.unlabelled is not None:
        other = dataset_spec(work.data.unlabelled)
        if (other.shape, other.teacher) != (spec.shape, spec.teacher):
            raise ProtocolError(
                f"{where} data.unlabelled = '{other.name}' has samples of {_size(other)}, '{spec.name}' of "
                f"{_size(spec)}: a network takes one shape. Choose images of the same shape, or leave it out."
            )


def _check_normalisation(work: Protocol, spec: DatasetSpec, where: str) -> None:
    channels, given = 0 if spec.teacher else spec.shape[2], len(work.data.mean)
    if given != channels:
        wanted = (
            f"one for each of its {channels} channels" if channels else "empty lists: its inputs are numbers already"
        )
        raise ProtocolError(
            f"{where} data.mean and data.std have {given} values each, and '{spec.name}' needs {wanted}."
        )


def _check_augmentation(work: Protocol, spec: DatasetSpec, where: str) -> None:
    layout = architecture_layout(work.architecture.name)
    valid = ["none"] if spec.teacher else ["none", "crop-flip"] if spec.raw is None else ["none", "resized-crop-flip"]
    if work.data.augment not in valid:
        raise ProtocolError(
            f"{where} data.augment = '{work.data.augment}' is not for samples of '{spec.name}'. "
            f"Valid: {', '.join(valid)}."
        )
    if spec.raw is not None and layout != "image":
        raise ProtocolError(
            f"{where} architecture.name = '{work.architecture.name}' takes {layout} rows, and images of '{spec.name}' "
            "are decoded as images, while they are used. Choose an architecture whose layout is image."
        )


def _check_scoring(work: Protocol, spec: DatasetSpec, where: str) -> None:
    """Classes have a cross-entropy and an accuracy; a teacher's answers have a squared error alone."""
    loss = "mse" if spec.teacher else "cross_entropy"
    if work.loss != loss:
        what = "numbers to be predicted" if spec.teacher else "classes"
        raise ProtocolError(f"{where} loss = '{work.loss}', and '{spec.name}' has {what}. Set loss: {loss}.")
    if spec.teacher is None:
        return
    if work.data.validation:
        raise ProtocolError(
            f"{where} data.validation = {work.data.validation}: samples are held out to score accuracy, and "
            f"'{spec.name}' has no classes. Set validation: 0."
        )
    scored = [name for name in ("probe", "published_probe", "published_epoch") if getattr(work, name) is not None]
    if scored or work.scores_accuracy:
        part = scored[0] if scored else f"headline = '{work.headline}'"
        raise ProtocolError(
            f"{where} {part} is of classes, and '{spec.name}' has none. Leave it out, and give a headline of alignment."
        )


def check_whitening(work: Protocol, spec: DatasetSpec) -> None:
    """Refuse to whiten what is no small image.

    Raises:
        ProtocolError: the protocol asks for it.
    """
    small = spec.teacher is None and spec.raw is None and math.prod(spec.shape) <= LARGEST
    if work.data.whiten is not None and not small:
        raise ProtocolError(
            f"protocol '{work.name}': data.whiten = {work.data.whiten} is for images of one size and up to {LARGEST} "
            f"numbers; those of '{spec.name}' are none. Leave it out."
        )


def _size(spec: DatasetSpec) -> str:
    return "×".join(map(str, spec.shape)) + (f" of a {spec.teacher}'s" if spec.teacher else "")
