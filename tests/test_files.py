import errno
import os
import stat
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

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


def test_tensors_that_share_memory_are_written_as_copies(tmp_path):
    x = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "whole": x,
        "again": x,
        "row": x[1],
        "overlapping": x.flatten()[2:9],
        "wide": x[:1].expand(2, 4),
    }
    write_safetensors(tmp_path / "x.safetensors", tensors, {})
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_files_are_the_same_byte_for_byte(tmp_path):
    """Whatever the order of a hash map, which differs from write to write."""
    metadata = {name: f"\u00bd {name}\n" for name in "tnezabcqwy"}
    contents = set()
    for order in (1, -1) * 4:
        path = tmp_path / "x.safetensors"
        write_safetensors(path, {"x": torch.ones(3)}, dict(list(metadata.items())[::order]))
        contents.add(path.read_bytes())
    assert len(contents) == 1
    with safe_open(path, "pt") as file:
        assert file.metadata() == metadata
        assert torch.equal(file.get_tensor("x"), torch.ones(3))


FULL = """
import resource, sys, torch
from pathlib import Path
from fewstep._files import replacing, write_safetensors, write_text
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
folder = Path(sys.argv[1])
def by_parts():
    with replacing(folder / "parts.bin") as temporary, temporary.open("wb") as file:
        for _ in range(20):
            file.write(bytes(100)); file.flush()
for write in (
    lambda: write_text(folder / "a.txt", "x" * 1234),
    lambda: write_safetensors(folder / "b.safetensors", {"x": torch.ones(500)}, {}),
    by_parts,
):
    try: write()
    except OSError as error: print(error)
"""


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_a_full_disk_is_told_with_the_file_and_both_sizes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    needs = {"a.txt": "1,234 bytes,", "b.safetensors": "2,000 bytes,", "parts.bin": "more,"}
    assert len(lines) == len(needs)
    for line, (name, needed) in zip(lines, needs.items(), strict=True):
        assert line.startswith(f"{tmp_path / name}: cannot be written (File too large): it needs {needed}")
        assert "bytes left; free some space" in line
    assert not list(tmp_path.iterdir())


def test_other_errors_of_writing_are_left_alone(tmp_path):
    with pytest.raises(PermissionError, match="no"), replacing(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "no")
