import os
import stat

import pytest
import torch
from safetensors import safe_open

from fewstep._files import replacing, write_safetensors, write_text
from fewstep._json import finite


def test_text_is_written_whole_as_utf8_into_new_folders(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    write_text(path, "½ ü\n")
    assert path.read_bytes() == "½ ü\n".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_the_old_file_stays_when_writing_fails(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half of the n")
            assert path.read_text() == "old"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_file_replaces_the_old_one_at_once(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".txt")
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "usual").touch()
    write_text(tmp_path / "ours", "")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE(
        (tmp_path / "usual").stat().st_mode
    )


def test_safetensors_keep_tensors_and_metadata(tmp_path):
    x = torch.arange(6.0).reshape(2, 3)
    write_safetensors(tmp_path / "x.safetensors", {"x": x.T}, {"seed": "0"})
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"seed": "0"}
        assert torch.equal(file.get_tensor("x"), x.T)


def test_finite_replaces_nan_and_infinity_however_deep():
    value = {"a": [1.5, float("nan"), ({"b": float("inf")}, -float("inf"))], "c": "nan", "d": None, "e": 3}
    assert finite(value) == {"a": [1.5, None, ({"b": None}, None)], "c": "nan", "d": None, "e": 3}
