"""Pictures, and the ways files hold them."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def pictures():
    """``pictures(count, size=8, channels=3)``: random levels, uint8, grey ``(count, size, size)``."""

    def make(count, size=8, channels=3):
        shape = (count, size, size, channels)[: 3 if channels == 1 else 4]
        return np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)

    return make


@pytest.fixture
def encoded():
    """``encoded(levels, format="PNG", **options)``: one picture as the bytes of a file."""

    def encode(levels, format="PNG", **options):
        buffer = io.BytesIO()
        image = levels if isinstance(levels, Image.Image) else Image.fromarray(levels)
        image.save(buffer, format, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture
def lay(tmp_path, encoded):
    """``lay(kind, files)``: a folder or zip file with these files, from levels or bytes by name."""

    def make(kind, files):
        contents = {
            name: value if isinstance(value, bytes) else encoded(value) for name, value in files.items()
        }
        if kind == "zip":
            with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
                for name, value in contents.items():
                    archive.writestr(name, value)
            return tmp_path / "data.zip"
        for name, value in contents.items():
            path = tmp_path / "folder" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(value)
        return tmp_path / "folder"

    return make


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A cache of ``datasets`` that belongs to the test."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub-cache")
    datasets.disable_progress_bars()
    return tmp_path / "hub-cache"
