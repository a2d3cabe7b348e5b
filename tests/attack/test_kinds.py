"""What is no regular file is refused, as its end might never come."""

from __future__ import annotations

import os
import signal

import pytest
from readers import READERS, complaint


@pytest.fixture
def _soon():
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for the pipe"))
    signal.alarm(10)
    yield
    signal.alarm(0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize("name", READERS)
def test_a_pipe_is_refused_or_left_out(name, tmp_path):
    reader = READERS[name]
    reader.make(tmp_path)
    path = tmp_path / reader.file
    path.unlink()
    os.mkfifo(path)
    assert complaint(reader, tmp_path) is None
