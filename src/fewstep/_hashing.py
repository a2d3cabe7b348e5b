"""Fingerprints of values, for cache keys and provenance."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["fingerprint"]


def fingerprint(value: Any) -> str:
    """A hash of tensors and arrays (type, shape and every bit), of mappings and sequences, or of a repr."""
    digest = sha256()
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        digest.update(f"array {value.dtype} {value.shape}".encode() + value.tobytes())
    elif isinstance(value, np.ndarray):
        digest.update(f"array {fingerprint(value.tolist())}".encode())
    elif isinstance(value, Mapping):
        for key in sorted(value):
            digest.update(f"{key!r}: {fingerprint(value[key])}, ".encode())
    elif isinstance(value, list | tuple):
        digest.update(f"[{', '.join(map(fingerprint, value))}]".encode())
    else:
        digest.update(repr(value).encode())
    return digest.hexdigest()[:16]
