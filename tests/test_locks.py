"""One writer a folder, and what killed writers leave."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from fewstep import _locks
from fewstep._files import replacing, sweep
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
    (tmp_path / LOCK).write_text("[]")
    lock_folder(tmp_path)
    unlock_folder(tmp_path)
