"""One picture: from the bytes of a file to pixels of the size and channels asked for."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .._extras import require

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["check_wishes", "decode", "fit", "fit_all", "pixels"]

#: Pillow's modes that are pixels as they stand, by their number of channels.
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def check_wishes(resolution: int | None, channels: int | None) -> None:
    """Refuse sizes and channels that no picture can be given."""
    if resolution is not None and resolution < 1:
        raise ValueError(f"load: resolution must be at least 1, or None, not {resolution}.")
    if channels not in (None, 1, 3):
        raise ValueError(f"load: channels must be 1 (grey), 3 (RGB), or None, not {channels}.")


def decode(data: bytes, where: str) -> Image:
    """Decode a picture, turned upright, with 1 to 4 channels of 8 bits.

    Palettes become RGB, or RGBA where they are transparent; CMYK and the like become RGB.

    Args:
        data: the content of a picture's file.
        where: which file, for messages.

    Raises:
        ValueError: naming ``where`` and what is wrong with it.
    """
    Image, ImageOps = require("PIL.Image", "data"), require("PIL.ImageOps", "data")
    try:
        image: Image = Image.open(BytesIO(data))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # its plugins meet damaged files with exceptions of every kind
        reason = "its format is unknown" if isinstance(error, Image.UnidentifiedImageError) else error
        raise ValueError(
            f"{where}: cannot be read as a picture ({reason}); replace or remove the file."
        ) from error
    if image.mode in _MODES.values():
        return image
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{where}: a picture of mode {image.mode}; convert it to 8 bits a channel.")
    if image.mode == "1":
        return image.convert("L")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def fit(image: Image, resolution: int | None, channels: int | None) -> Image:
    """Crop to the central square, resize it, and convert; ``None`` keeps what is there.

    Resizing is Pillow's Lanczos, whose kernel widens when it shrinks, so that nothing aliases. It is
    the filter of EDM's ``dataset_tool.py`` (Karras et al. 2022), and so of its FFHQ and AFHQv2 at 64.
    """
    if channels is not None:
        image = image.convert(_MODES[channels])
    if resolution is not None and image.size != (resolution, resolution):
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        lanczos = require("PIL.Image", "data").Resampling.LANCZOS
        image = image.resize((resolution, resolution), lanczos, box=(left, top, left + side, top + side))
    return image


def pixels(image: Image) -> NDArray[np.uint8]:
    """Levels of shape ``(C, H, W)``."""
    levels = np.asarray(image)
    return levels[None] if levels.ndim == 2 else levels.transpose(2, 0, 1)


def fit_all(
    x: NDArray[np.uint8], resolution: int | None, channels: int | None, where: str
) -> NDArray[np.uint8]:
    """:func:`fit` for pictures in memory, ``(N, C, H, W)``."""
    size = (channels or x.shape[1], resolution or x.shape[2], resolution or x.shape[3])
    if x.shape[1:] == size:
        return x
    if x.shape[1] not in _MODES:
        raise ValueError(f"{where}: pictures of {x.shape[1]} channels can be neither resized nor converted.")
    Image = require("PIL.Image", "data")
    fitted = np.empty((len(x), *size), np.uint8)
    for row, picture in zip(fitted, x, strict=True):
        levels = np.ascontiguousarray(picture.transpose(1, 2, 0).squeeze(2) if len(picture) == 1 else picture.transpose(1, 2, 0))
        row[:] = pixels(fit(Image.fromarray(levels), resolution, channels))
    return fitted
