"""Tensors in a file behind a digest: what is damaged, or of another form, is never read."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch

FORMAT = 3
"""Of what is saved; a file of another format is not read."""


def seal(state: dict[str, Any]) -> bytes:
    """`state` (tensors and plain values) as the content of a file."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    payload = buffer.getvalue()
    return _digest(payload) + payload


def unseal(path: Path) -> dict[str, Any] | None:
    """What was sealed, on the CPU; None if the file is absent, damaged or of another format."""
    try:
        content = path.read_bytes()
        digest, payload = content[: len(_digest(b""))], content[len(_digest(b"")) :]
        if digest != _digest(payload):
            return None
        loaded = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, OSError, KeyError, pickle.UnpicklingError):
        return None
    return loaded if isinstance(loaded, dict) and loaded.get("format") == FORMAT else None


def _digest(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest()
