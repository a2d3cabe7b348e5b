"""Images as bytes embedded in a page."""

from __future__ import annotations

import io
import struct

from torch import Tensor

from ..._extras import require
from ...data import is_picture, sheet_levels

__all__ = ["png_size", "sprite"]


def sprite(pictures: Tensor) -> bytes:
    """Return a row of images in [-1, 1], ``(B, 1 or 3, H, W)``, without gaps, as a PNG; one channel is grey.

    Raises:
        ValueError: if they are not images.
    """
    if pictures.ndim != 4 or len(pictures) == 0 or not is_picture(tuple(pictures.shape[1:])):
        raise ValueError(
            f"page: a strip holds images of shape (B, 1 or 3, H, W), not {tuple(pictures.shape)}; reshape "
            "them, or leave the strip out."
        )
    levels = sheet_levels(pictures, columns=len(pictures), gap=0)
    file = io.BytesIO()
    require("PIL.Image", "plot").fromarray(levels.numpy()).save(file, "PNG", optimize=True)
    return file.getvalue()


def png_size(png: bytes) -> tuple[int, int]:
    """Return width and height of a PNG file.

    Raises:
        ValueError: if it is not a PNG file.
    """
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) < 24:
        raise ValueError(
            f"page: Image.png must hold the bytes of a PNG file, not {png[:8]!r}...; save it as PNG."
        )
    width, height = struct.unpack(">II", png[16:24])
    return int(width), int(height)
