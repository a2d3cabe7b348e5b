"""Images decoded on access."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._hashing import fingerprint
from ._dataset import Dataset
from ._picture import Form, decode, pixels
from ._records import Records

__all__ = ["ImageFiles"]

#: Number of images that a fingerprint reads.
_HASHED = 16


class ImageFiles(Dataset):
    """Encoded images in a folder, a zip file or a table.

    The first is read in the constructor; all others must match its size and channels. The object can be
    pickled and read in the worker processes of a data loader.

    Args:
        records: the encoded images.
        name: their name.
        form: the size and channels to convert them to.

    Raises:
        ValueError: here and on reading, naming an image that is damaged or differs from the first.
    """

    def __init__(self, records: Records, name: str, form: Form) -> None:
        self.name = name
        self._records, self._form = records, form
        self.shape = self._read(0).shape

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, indices: Sequence[int] | Tensor) -> Tensor:
        numbers = [int(index) for index in indices]
        batch = np.empty((len(numbers), *self.shape), np.uint8)
        for row, index in zip(batch, numbers, strict=True):
            picture = self._read(index)
            if picture.shape != self.shape:
                raise ValueError(
                    f"{self._records.where(index)}: a picture of {_describe(picture.shape)}, but the first, "
                    f"{self._records.where(0)}, has {_describe(self.shape)}; "
                    "give load() a resolution and channels to make them alike."
                )
            row[:] = picture
        return torch.from_numpy(batch)

    def _read(self, index: int) -> NDArray[np.uint8]:
        where = self._records.where(index)
        try:
            data = self._records.read(index)
        except (OSError, ValueError) as error:
            raise ValueError(f"{where}: cannot be read ({error}).") from error
        return pixels(self._form.of(decode(data, where)))

    def fingerprint(self) -> str:
        some = range(0, len(self), max(1, len(self) // _HASHED))
        contents = [self._records.read(index) for index in some]
        return fingerprint([self.shape, "\n".join(self._records.inventory()), contents])


def _describe(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width} x {height} pixels and {channels} channel{'s' if channels > 1 else ''}"
