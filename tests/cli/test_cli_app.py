"""The program itself: how it ends when it is interrupted."""

import os
import signal
import subprocess
import sys
import time

import pytest

MODEL = """
import pathlib, time
import fewstep as fs

def velocity(x, t):
    pathlib.Path("called").touch()
    time.sleep(30)
    return -x

slow = fs.Field(velocity, shape=(2,), name="slow")
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_program_says_so_in_a_sentence(tmp_path, sent):
    (tmp_path / "slow.py").write_text(MODEL)
    words = ["sample", "slow.py:slow", "euler:2", "--count", "2"]
    started = subprocess.Popen(
        [sys.executable, "-m", "fewstep", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As in a terminal: what starts in the background of a shell ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "called").exists():
            assert started.poll() is None, started.communicate()
            assert time.monotonic() < end
            time.sleep(0.05)
        started.send_signal(sent)
        out, err = started.communicate(timeout=30)
    finally:
        started.kill()
    assert (out, err) == ("", "interrupted; what was finished is kept\n")
    assert started.returncode == 130


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("import fewstep\nfield = undefined\n", 2, "NameError: name 'undefined' is not defined"),
        ("\ndef (\n", 2, "SyntaxError: invalid syntax"),
        ("import no_such_module\n", 1, "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_a_mistake_in_ones_own_file_is_a_sentence_with_its_line(failure, tmp_path, text, line, why):
    (tmp_path / "own.py").write_text(text)
    said = failure("compare", "own.py:field", "euler")
    assert said.startswith(f"error: MODEL: own.py, line {line}, cannot be run: {why}")
    assert said.count("\n") == 1
