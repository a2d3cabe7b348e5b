"""Names inside files, which strangers chose, come into messages short and without control characters."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pyarrow as arrow
import pytest
from PIL import Image
from pyarrow import parquet

import fewstep as fs
from fewstep._reading import excerpt, printable, reading
from fewstep.cli import _app

EVIL = "\x1b[31m\a\n" + "x" * 50


def _many_arrays(folder):
    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        for k in range(5_000):
            archive.writestr(f"{EVIL}{k}.npy", b"")
    return "a.npz"


def _long_member(folder):
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr(EVIL + "y" * 60_000 + ".png", b"none")
    return "a.zip"


def _unread_members(folder):
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr(EVIL + "y" * 60_000 + ".tif", b"none")
    return "a.zip"


def _outside_splits(folder):
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("train/0.png", b"none")
        archive.writestr(EVIL + "y" * 60_000 + ".png", b"none")
    return "a.zip"


def _many_columns(folder):
    parquet.write_table(arrow.table({f"{EVIL}{k}": [1] for k in range(3_000)}), folder / "a.parquet")
    return "a.parquet"


def _picture(folder):
    (folder / "pictures" / EVIL).mkdir(parents=True)
    (folder / "pictures" / EVIL / "0.png").write_bytes(b"none")
    return "pictures"


def _other_sizes(folder):
    (folder / "pictures").mkdir()
    for side in (4, 5):
        Image.fromarray(np.zeros((side, side), np.uint8)).save(folder / "pictures" / f"{side}{EVIL}.png")
    return "pictures"


def _dangling(folder):
    (folder / "pictures").mkdir()
    os.symlink("nowhere" + EVIL, folder / "pictures" / f"{EVIL}.png")
    return "pictures"


@pytest.mark.skipif(os.name == "nt", reason="names of POSIX")
@pytest.mark.parametrize(
    "make",
    [
        _many_arrays, _long_member, _unread_members, _outside_splits, _many_columns, _picture, _other_sizes,
        _dangling,
    ],
)  # fmt: skip
def test_messages_are_short_and_plain(tmp_path, make):
    with pytest.raises(ValueError, match=r"pictures|a\.") as caught:
        fs.data.load(tmp_path / make(tmp_path)).check()
    said = str(caught.value).replace(str(tmp_path), "")
    assert said.isprintable()
    assert len(said) < 600


def test_reading_names_an_odd_file_in_print(tmp_path):
    path = tmp_path / EVIL
    for error in (ValueError("bad"), ValueError(f"{path}: bad\x1b"), OSError(5, "bad"), FileNotFoundError()):
        with pytest.raises((ValueError, OSError)) as caught, reading(path, "file"):
            raise error
        assert str(caught.value).startswith(f"{printable(str(path))}: ")
        assert str(caught.value).isprintable()


def test_excerpts_are_fit_to_print():
    assert excerpt("ü\x1b\n½") == "ü\\x1b\\n½"
    assert excerpt("x" * 251) == "x" * 247 + "..."
    assert len(excerpt("\x1b" * 1_000)) == 250


def test_the_program_prints_no_control_characters():
    said = _app._sentence(ValueError(f"{EVIL}\nmore {'y' * 20_000}"))
    assert said.replace("\n", "").isprintable()
    assert len(said) <= 10_000 + 20
    assert _app._note(UserWarning("\x1b[31m"), UserWarning, _app.__file__, 1) == "note: \\x1b[31m\n"
