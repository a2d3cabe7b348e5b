"""Data sets: numbered samples, read in batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from .._hashing import fingerprint

__all__ = ["ArrayDataset", "Dataset"]

#: Samples per read of :meth:`Dataset.check`, and samples that an :class:`ArrayDataset` hashes.
_CHUNK, _HASHED = 256, 64


class Dataset(ABC):
    """Samples of one shape, numbered from 0, read in batches.

    Usable as the map-style dataset of ``torch.utils.data.DataLoader(data, sampler=..., batch_size=None)``
    with a sampler that yields lists of indices.

    Attributes:
        name: name of the data in messages and reports.
        shape: shape of one sample; ``(C, H, W)`` for images.
    """

    name: str
    shape: tuple[int, ...]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, indices: Sequence[int] | Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the samples with these indices, in this order.

        Returns:
            Images as uint8 of shape ``(B, C, H, W)`` in 0 to 255; other data as float32 ``(B, *shape)``;
            noise-sample pairs as ``(x0, x1)``.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a short, cheap hash that identifies the data; not every byte is read.

        It depends on the samples, not on the name or location of the data.
        """

    def check(self) -> None:
        """Read every sample once, so that a damaged one is found before training.

        Raises:
            ValueError: naming the first sample that cannot be read.
        """
        for start in range(0, len(self), _CHUNK):
            self[range(start, min(start + _CHUNK, len(self)))]


class ArrayDataset(Dataset):
    """Samples held in memory: images, points, latents.

    Args:
        x: uint8 images ``(N, C, H, W)``, or floating-point data ``(N, ...)``, stored as float32.
        name: their name.

    Raises:
        ValueError: for another type or shape, no samples, or numbers that are not finite.
    """

    def __init__(self, x: Tensor, name: str = "array") -> None:
        pictures = x.dtype == torch.uint8 and x.ndim == 4
        if not (pictures or (x.is_floating_point() and x.ndim > 1)):
            raise ValueError(
                f"{name}: samples must be uint8 pictures (N, C, H, W) or floating-point data (N, ...), "
                f"not {x.dtype} of shape {tuple(x.shape)}."
            )
        if x.numel() == 0:
            raise ValueError(f"{name}: holds no samples; its shape is {tuple(x.shape)}.")
        if x.is_floating_point():
            x = x.float()
            if not x.isfinite().all():
                raise ValueError(f"{name}: samples must be finite in float32; some are NaN or infinite.")
        self.name, self.shape = name, tuple(x.shape[1:])
        self._x = x.detach().cpu()

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, indices: Sequence[int] | Tensor) -> Tensor:
        return self._x[torch.as_tensor(indices, dtype=torch.long, device="cpu")]

    def fingerprint(self) -> str:
        rows = self._x[:: max(1, len(self) // _HASHED)]
        return fingerprint([tuple(self._x.shape), rows])
