"""The program itself: how it ends when it is interrupted."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

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


def ended(code):
    """Run a program that a signal ends; the tests themselves may be in the background, without Ctrl-C."""
    command = [sys.executable, "-c", code]
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, preexec_fn=heed)


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
    assert started.returncode == 128 + sent


#: Sends itself a signal when a module is imported, in a finaliser, or where nobody lets it through.
MOMENTS = """
import os, signal, sys
from fewstep.cli import main

class Import:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number})

class Finalised:
    def __del__(self):
        os.kill(os.getpid(), {number})

def swallow(*_):
    try:
        os.kill(os.getpid(), {number})
    except KeyboardInterrupt:
        raise RuntimeError("DataLoader worker exited")

def strike_last():
    import atexit
    atexit.register(strike)

def strike():
    os.kill(os.getpid(), {number})
    len("a step, as Python 3.10 handles no signal after the last one")

def fail(*_):
    strike_last()
    raise ValueError("no.")

def wait(*_):
    import datetime, threading
    from torch.distributed import TCPStore
    threading.Timer(1, os.kill, (os.getpid(), {number})).start()
    TCPStore("127.0.0.1", 0, 2, True, datetime.timedelta(seconds=300))  # for a second process, in vain

moment = {moment!r}
if moment == "import":
    sys.meta_path.insert(0, Import())
elif moment == "end":
    strike_last()
else:
    from fewstep.cli import _app, _interrupts
    _interrupts._PATIENCE = 0.3
    runs = {{"swallowed": swallow, "waiting": wait, "failed": fail}}
    _app._run = runs.get(moment, lambda words: Finalised() and None)
sys.argv = ["fewstep", "check", "digits"] if moment == "import" else ["fewstep", "--version"]
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("moment", "module"),
    [
        *(
            ("import", name)
            for name in ("yaml", "fewstep.cli._app", "torch", "numpy", "fewstep.networks.mlp")
        ),
        ("finaliser", None),
        ("swallowed", None),
        ("waiting", None),
        ("end", None),
    ],
)
def test_a_signal_at_any_moment_ends_in_one_line(moment, module, sent):
    code = MOMENTS.format(moment=moment, module=module, number=int(sent))
    done = ended(code)
    assert done.stderr == "interrupted; what was finished is kept\n"
    assert done.returncode == 128 + sent


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
def test_a_signal_after_an_error_adds_no_line():
    code = MOMENTS.format(moment="failed", module=None, number=int(signal.SIGTERM))
    done = ended(code)
    assert done.stderr == "error: no.\n"
    assert done.returncode == 128 + signal.SIGTERM


def test_output_that_cannot_be_written_is_told(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    words = [sys.executable, "-m", "fewstep", "--version"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.stderr == "error: standard output cannot be written ([Errno 28] No space left on device).\n"
    assert done.returncode == 2


def test_errors_under_torchrun_are_a_line_with_the_rank(monkeypatch, failure):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    trace = "Connection closed\nException raised from recvBytes (most recent call first):\nframe #0"

    def fail(words):
        raise RuntimeError(trace)

    monkeypatch.setattr("fewstep.cli._app._run", fail)
    assert failure("check") == "error: rank 1: Connection closed\n"


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
