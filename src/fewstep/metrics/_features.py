"""What every metric asks of features."""

from __future__ import annotations

from torch import Tensor

__all__ = ["check_features"]


def check_features(caller: str, **named: Tensor) -> None:
    """Raise a ``ValueError`` that names the argument that is not floating-point ``(n, d)`` with ``d > 0``."""
    for name, x in named.items():
        if not isinstance(x, Tensor):
            raise ValueError(f"{caller}: {name} must be a tensor of shape (n, d), not a {type(x).__name__}.")
        if x.ndim != 2 or not x.is_floating_point() or x.shape[1] == 0:
            raise ValueError(
                f"{caller}: {name} must be floating-point feature vectors of shape (n, d), "
                f"not {x.dtype} of shape {tuple(x.shape)}; pictures go through a feature network first."
            )
