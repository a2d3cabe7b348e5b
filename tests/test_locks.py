"""One writer a folder, and what killed writers leave."""

import errno
import json
import os
import re
import signal
import subprocess
import sys

import pytest

from fewstep import _locks
from fewstep._files import only_writer, replacing, sweep
from fewstep._locks import LOCK, lock_folder, unlock_folder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there are no such locks")

#: A process that locks a folder, and is in the middle of a file there.
WRITER = """
import sys, time
from pathlib import Path
from fewstep._files import replacing
from fewstep._locks import lock_folder
folder = Path(sys.argv[1])
lock_folder(folder)
with replacing(folder / "sub" / "file.txt") as temporary:
    temporary.write_text("half")
    print("ready", flush=True)
    {forks}
    time.sleep(60)
"""


@pytest.fixture
def writer(tmp_path):
    """Start another process that writes in a folder."""
    started = []

    def start(forks=""):
        command = [sys.executable, "-c", WRITER.format(forks=forks), str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def parts(folder):
    return [path.name for path in folder.rglob(".fewstep-*")]


def test_a_second_writer_is_told_who_the_first_is(tmp_path, writer):
    first = writer()
    with pytest.raises(ValueError, match=rf"written by process {first.pid} on .+ since 20\d\d-.+; wait"):
        lock_folder(tmp_path)
    sweep(tmp_path)
    assert len(parts(tmp_path)) == 1  # it is being written


@pytest.mark.parametrize("forks", ["", "os = __import__('os'); os.fork() or time.sleep(60)"])
def test_a_killed_writer_is_followed_with_a_word(tmp_path, writer, forks):
    """At once, although its children, such as those that load data, may live on."""
    first = writer(forks)
    first.send_signal(signal.SIGKILL)
    first.wait()
    with pytest.warns(UserWarning, match=rf"taken over from process {first.pid} on .+, which is gone"):
        lock_folder(tmp_path)
    (tmp_path / "sub" / ".fewstep-of-a-stranger").mkdir()
    sweep(tmp_path)
    assert parts(tmp_path) == [".fewstep-of-a-stranger"]
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    lock_folder(tmp_path)  # again by the same process
    unlock_folder(tmp_path)
    assert not (tmp_path / LOCK).exists()
    unlock_folder(tmp_path)


def test_without_locks_of_the_file_system_the_process_number_decides(tmp_path, monkeypatch, writer):
    def flock(handle, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(_locks.fcntl, "flock", flock)
    first = writer()
    with pytest.raises(ValueError, match=f"written by process {first.pid}"):
        lock_folder(tmp_path)
    with replacing(tmp_path / "other.txt"):
        sweep(tmp_path)
        assert len(parts(tmp_path)) == 2  # for all one can tell
    first.kill()
    first.wait()
    with pytest.warns(UserWarning, match="taken over"):
        lock_folder(tmp_path)
    unlock_folder(tmp_path)
    (tmp_path / LOCK).write_text(json.dumps({"host": "elsewhere", "pid": 1, "time": "then"}))
    with pytest.raises(ValueError, match=r"process 1 on elsewhere since then; .* \(if it is gone, remove"):
        lock_folder(tmp_path)
    (tmp_path / LOCK).write_text("")
    lock_folder(tmp_path)
    unlock_folder(tmp_path)


def link(path):
    path.symlink_to(path.parent / "mine.txt")


@pytest.mark.parametrize(
    "make",
    [
        link,
        os.mkfifo,
        os.mkdir,
        *(
            lambda path, text=text: path.write_text(text)
            for text in (
                "mine",
                "[]",
                "[" * 990,
                '{"pid": 1}',
                '{"host": "a\\u001b[31m", "pid": 1, "time": ""}',
            )
        ),
    ],
)
def test_files_of_others_are_not_taken_for_locks(tmp_path, make):
    """A folder that a stranger has packed must not let us write elsewhere."""
    (tmp_path / "mine.txt").write_text("precious")
    make(tmp_path / LOCK)
    before = (tmp_path / LOCK).lstat()
    with pytest.raises(ValueError, match=rf"{re.escape(LOCK)} is of another program; remove it, or choose"):
        lock_folder(tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "precious"
    assert (tmp_path / LOCK).lstat()[:7] == before[:7]


def test_files_of_others_are_not_swept(tmp_path):
    names = [".fewstep-notes.txt", ".fewstep-keep.json", ".fewstep-0123abcd", ".fewstep-0123ABCD-x"]
    for name in names:
        (tmp_path / name).write_text("precious")
    (tmp_path / ".fewstep-0123abcd-left.txt").touch()
    (tmp_path / ".fewstep-0123abce-link.txt").symlink_to(names[0])
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, ".fewstep-0123abce-link.txt"])


def test_a_process_writes_once_in_a_folder(tmp_path):
    lock_folder(tmp_path)
    with only_writer(tmp_path):
        with (
            pytest.raises(ValueError, match="is being written by this process already"),
            only_writer(tmp_path),
        ):
            pass
        assert (tmp_path / LOCK).exists()
    with only_writer(tmp_path):
        pass


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_leaves_the_files_of_its_parent(tmp_path):
    parent = os.getpid()
    try:
        with replacing(tmp_path / "file.txt") as temporary:
            temporary.write_text("whole")
            child = os.fork()
            if child == 0:
                raise RuntimeError("ends the block in the child")
            os.waitpid(child, 0)
    finally:
        if os.getpid() != parent:
            os._exit(0)
    assert (tmp_path / "file.txt").read_text() == "whole"
