"""Decoding and resizing of one image."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .._extras import require
from .._reading import excerpt

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ENCODED", "Form", "decode", "opened", "pixels"]

#: The decoders of Pillow that may be used.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
#: Most pixels of a picture, which cameras reach: four bytes each while it is decoded.
_PIXELS = 100_000_000
#: Most bytes of an encoded picture.
ENCODED = 1 << 27

#: Pillow's modes with plain 8-bit channels, by number of channels.
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Form:
    """The size and channels to convert images to; ``None`` keeps them.

    Args:
        resolution: crop to the central square and resize it to this many pixels a side.
        channels: convert to 1 (grey) or 3 (RGB; transparency is dropped).
    """

    resolution: int | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        if self.resolution is not None and self.resolution < 1:
            raise ValueError(f"load: resolution must be at least 1, or None, not {self.resolution}.")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"load: channels must be 1 (grey), 3 (RGB), or None, not {self.channels}.")

    def admits(self, shape: tuple[int, ...]) -> bool:
        """True for samples whose shape is already in this form."""
        if self == Form():
            return True
        C, H, W = shape if len(shape) == 3 else (0, 0, 0)
        return C == (self.channels or C) and (H, W) == (self.resolution or H, self.resolution or W)

    def of(self, image: Image) -> Image:
        """Convert one image.

        Resizing uses Pillow's antialiased Lanczos filter, as EDM's ``dataset_tool.py`` does (Karras et al.
        2022), for example for FFHQ and AFHQv2 at 64 x 64.
        """
        if self.channels is not None:
            image = image.convert(_MODES[self.channels])
        if self.resolution is not None and image.size != (self.resolution, self.resolution):
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            # Not resize(box=...), whose kernel would read pixels outside the box.
            image = image.crop((left, top, left + side, top + side))
            lanczos = require("PIL.Image", "data").Resampling.LANCZOS
            image = image.resize((self.resolution, self.resolution), lanczos)
        return image

    def of_all(self, x: NDArray[np.uint8], where: str) -> NDArray[np.uint8]:
        """Convert images in memory, ``(N, C, H, W)``."""
        N, C, H, W = x.shape
        if self.admits((C, H, W)):
            return x
        if C not in _MODES:
            raise ValueError(f"{where}: images of {C} channels can be neither resized nor converted.")
        fitted = np.empty((N, self.channels or C, self.resolution or H, self.resolution or W), np.uint8)
        for row, picture in zip(fitted, x, strict=True):
            row[:] = pixels(self.of(_image(picture)))
        return fitted


def opened(data: bytes) -> Image:
    """Open a picture of one of the four formats, after a look at its size.

    Other decoders of Pillow are not tried: that of PostScript would start a program.

    Raises:
        Exception: of any kind, on a damaged picture; ``ValueError`` on a large one.
    """
    pillow = require("PIL.Image", "data")
    if data[:4] == b"RIFF":
        _check_size(*_webp_size(data))  # Pillow allots whole canvases before it tells their size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pillow.DecompressionBombWarning)  # our own limit is checked here
        image: Image = pillow.open(BytesIO(data), formats=FORMATS)
    _check_size(*image.size)
    return image


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height in the header of a WebP file, in one of its three layouts; zeros in another."""
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return width, height


def _check_size(width: int, height: int) -> None:
    if width * height > _PIXELS:
        raise ValueError(f"it has {width} x {height} pixels, and may have {_PIXELS:,}")


def decode(data: bytes, where: str) -> Image:
    """Decode an image file to 1 to 4 channels of 8 bits, with its EXIF orientation applied.

    Palettes become RGB, or RGBA if they are transparent; CMYK and the like become RGB.
    """
    pillow, operations = require("PIL.Image", "data"), require("PIL.ImageOps", "data")
    try:
        image = opened(data)
        image.load()
        operations.exif_transpose(image, in_place=True)
    except Exception as error:  # on damaged files Pillow's plugins raise exceptions of every kind
        unknown = isinstance(error, pillow.UnidentifiedImageError)
        reason = f"it is none of {', '.join(FORMATS)}" if unknown else excerpt(str(error))
        raise ValueError(
            f"{where}: cannot be read as a picture ({reason}); replace or remove the file."
        ) from error
    if image.mode in _MODES.values():
        return image
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{where}: an image of mode {image.mode}; convert it to 8 bits a channel.")
    if image.mode == "1":
        return image.convert("L")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def pixels(image: Image) -> NDArray[np.uint8]:
    """Return the levels, of shape ``(C, H, W)``."""
    levels = np.asarray(image)
    return levels[None] if levels.ndim == 2 else levels.transpose(2, 0, 1)


def _image(levels: NDArray[np.uint8]) -> Image:
    """The inverse of :func:`pixels`."""
    levels = levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0)
    image: Image = require("PIL.Image", "data").fromarray(np.ascontiguousarray(levels))
    return image
