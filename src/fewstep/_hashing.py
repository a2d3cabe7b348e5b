"""Fingerprints of values, for cache keys and provenance."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

__all__ = ["fingerprint"]


def fingerprint(value: Any) -> str:
    """Hash tensors (type, shape and every bit), mappings and sequences of them, and other values' repr."""
    digest = sha256()
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        for key in sorted(value):
            digest.update(f"{key!r}: {fingerprint(value[key])}, ".encode())
    elif isinstance(value, list | tuple):
        digest.update(f"[{', '.join(map(fingerprint, value))}]".encode())
    else:
        digest.update(repr(value).encode())
    return digest.hexdigest()[:16]
