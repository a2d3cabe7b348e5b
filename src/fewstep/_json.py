"""Standard JSON, which has no NaN and no Infinity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["finite"]


def finite(value: Any) -> Any:
    """Return a copy without NumPy's numbers, and ``None`` for every one that is not finite, at any depth."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(finite(entry) for entry in value)
    return value
