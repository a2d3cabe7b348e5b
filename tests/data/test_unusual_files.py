"""Valid files of unusual sizes and kinds are read."""

from __future__ import annotations

import io
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

import fewstep as fs
from fewstep.cli._condition_files import conditioned


def test_black_pictures_are_packed_far_and_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x_train=np.zeros((30_000, 64, 64), np.uint8))
    assert (tmp_path / "a.npz").stat().st_size < 30_000 * 64 * 64 / 500
    assert len(fs.data.load(tmp_path / "a.npz")) == 30_000


def test_a_picture_of_a_camera_is_read(tmp_path):
    Image.new("RGB", (8192, 5464)).save(tmp_path / "0.jpg")
    assert fs.data.load(tmp_path, resolution=8).shape == (3, 8, 8)


@pytest.mark.parametrize(
    "other",
    [
        np.array(["2024-01-01"], "datetime64[D]"),
        np.ones(2, "c16"),
        np.zeros(2, [("a", "f4")]),
        np.array([{}, []], object),
    ],
    ids=["dates", "complex", "structured", "objects"],
)
def test_arrays_of_other_types_are_left_out_of_conditions_and_data(tmp_path, other):
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 4, 4), np.uint8), other=other)
    assert len(fs.data.load(tmp_path / "a.npz")) == 2
    with pytest.warns(UserWarning, match=r"a\.npz: array 'other' is of type .*; it is left out"):
        found = conditioned(tmp_path / "a.npz", None, "cpu")["conditions"]
    assert list(found) == ["images"]


def test_bytes_of_numpy_are_text(tmp_path):
    np.savez(
        tmp_path / "a.npz", prompt=np.array(["a", "ü"]).astype("U2"), label=np.array([b"a", "ü".encode()])
    )
    found = conditioned(None, tmp_path / "a.npz", "cpu")["per_sample"]
    assert found == {"prompt": ["a", "ü"], "label": ["a", "ü"]}
    np.savez(tmp_path / "a.npz", label=np.array([b"\xff"]))
    with pytest.raises(ValueError, match=r"label of .*a\.npz holds bytes that are no text"):
        conditioned(None, tmp_path / "a.npz", "cpu")


def test_many_prompts_in_yaml_are_read(tmp_path):
    prompts = [f"a portrait of a person, number {k}" for k in range(11_000)]
    (tmp_path / "a.yaml").write_text("prompt:\n" + "".join(f"- {each}\n" for each in prompts))
    assert conditioned(None, tmp_path / "a.yaml", "cpu")["per_sample"] == {"prompt": prompts}


def test_a_byte_order_mark_before_json_is_no_damage(tmp_path):
    made = fs.classical.euler(2)
    made.save(tmp_path / "s.json")
    (tmp_path / "s.json").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "s.json").read_bytes())
    assert fs.load(tmp_path / "s.json") == made


def test_a_zip_of_many_members_is_listed_soon(tmp_path):
    stream = io.BytesIO()
    Image.new("L", (4, 4)).save(stream, "PNG")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("all/train/0.png", stream.getvalue())
        for k in range(1, 100_000):
            archive.writestr(f"all/train/{k}.png", b"")
    alone, listed = quickest(lambda: zipfile.ZipFile(tmp_path / "a.zip").namelist())
    seconds, data = quickest(lambda: fs.data.load(tmp_path / "a.zip"))
    assert len(data) == len(listed)
    assert seconds < 5 * alone + 0.7


def quickest(work):
    """Return the least processor time of two runs, of which the first may import, and the result."""
    seconds = []
    for _ in range(2):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return min(seconds), result
