"""Attacks on processes: signals, kills, twins, full disks and lost ranks, at moments that chance chooses.

Each is a function of an empty folder and a source of chance that returns its faults in words. Runs that were
attacked and resumed must give, byte for byte, the files of one that was left alone.
"""

from __future__ import annotations

import functools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

__all__ = ["ATTACKS"]

#: Small runs of the program, which end in seconds, and the files that they are for.
TRAIN = [
    *("train", "--data", "digits", "--network", "{class: MLP, width: 32, blocks: 1}", "--device", "cpu"),
    *("--steps", "400", "--batch", "16", "--lr", "1e-3", "--warmup", "2", "--checkpoint-every", "5"),
    *("--log-every", "1", "--validate-every", "100"),
]
SAMPLE = ["sample", "digits", "midpoint:2", "--count", "300", "--shard", "6", "--batch", "3"]
FIT = ["fit", "digits", "--nfe", "3", "--pairs", "60", "--iterations", "8"]
COMPARE = ["compare", "digits", "euler", "midpoint", "--nfe", "2,4", "--count", "200"]
RUNS = {
    "train": ([*TRAIN], "*.safetensors"),
    "sample": ([*SAMPLE, "--format", "safetensors,npz,png"], "**/*[!.html]"),
    "fit": ([*FIT], "*.json"),
    "compare": ([*COMPARE], "results.csv"),
}
WAIT = 300

#: What differs from run to run: times in JSON, and in the last column of tables.
_TIMES = {
    ".json": re.compile(rb'"(samples_per_second|seconds)": (\{[^}]*\}|[^,\n]*)'),
    ".csv": re.compile(rb",[^,\n]*$", re.MULTILINE),
}

#: Lines on standard error that are no faults: notes, and what Matplotlib says of fonts.
_NOTES = ("note: ", "findfont: ")

Faults = Iterator[str]


def start(words: list[str], out: Path, limit: int | None = None, launcher: tuple[str, ...] = ()) -> Any:
    """Start the program, with a limit in bytes on each file that it writes."""

    def before() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, *launcher, "-m", "fewstep", *words, "--out", str(out)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=before)


def end(process: Any) -> tuple[int, list[str]]:
    """Wait for the program; return its status and the lines on standard error."""
    try:
        _, said = process.communicate(timeout=WAIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return -1, [f"hangs for {WAIT} s"]
    return process.returncode, [line for line in said.splitlines() if not line.startswith(_NOTES)]


@functools.cache
def whole(run: str) -> tuple[float, dict[str, bytes]]:
    """Return the seconds and the files of a run that is left alone."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        status, said = end(start(RUNS[run][0], Path(folder) / "out"))
        if status:
            raise RuntimeError(f"{run} fails when left alone: {said}")
        return time.monotonic() - began, contents(run, Path(folder) / "out")


def contents(run: str, out: Path) -> dict[str, bytes]:
    """Return the files that a run is for, without their folder and the times that they report."""
    found = {}
    for path in sorted(out.glob(RUNS[run][1])):
        if path.is_file():
            content = path.read_bytes().replace(str(out).encode(), b"OUT")
            times = _TIMES.get(path.suffix)
            found[str(path.relative_to(out))] = times.sub(b"", content) if times else content
    return found


def finished(run: str, out: Path) -> Faults:
    """Run the program to its end, and tell how its files differ from those of a run left alone."""
    status, said = end(start(RUNS[run][0], out))
    if status or said:
        yield f"{run}: status {status} when repeated: {said}"
    yield from same(run, out)


def same(run: str, out: Path) -> Faults:
    """Tell how the files of a run differ from those of one left alone."""
    expected, found = whole(run)[1], contents(run, out)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            how = "is missing" if name not in found else "differs" if name in expected else "is left over"
            yield f"{run}: {name} {how}"
    for path in [*out.rglob(".fewstep-*"), *out.rglob(".fewstep.lock")]:
        yield f"{run}: leaves {re.sub('[0-9a-f]{8}', '*', path.name)}"
    if (out / "metrics.jsonl").exists():
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        steps = [line["step"] for line in lines if "loss" in line]
        if steps != sorted(set(steps)):
            yield f"{run}: metrics out of order"


def any_moment(run: str, chance: Random) -> float:
    """Return seconds after the start, when Python itself has begun, up to the usual end."""
    return chance.uniform(0.3, whole(run)[0])


def signalled(folder: Path, chance: Random) -> Faults:
    """Ctrl-C or SIGTERM at any moment: one line, status 130 or 143, and nothing lost."""
    run, number = chance.choice(sorted(RUNS)), chance.choice([signal.SIGINT, signal.SIGTERM])
    process, moment = start(RUNS[run][0], folder / "out"), any_moment(run, chance)
    time.sleep(moment)
    process.send_signal(number)
    status, said = end(process)
    if status not in (0, 128 + number) or len(said) != (status != 0):
        yield f"{run}: status {status} on {number.name}: {said[-3:]}"
    yield from finished(run, folder / "out")


def killed(folder: Path, chance: Random) -> Faults:
    """Kills in a loop, then a run to the end."""
    run = chance.choice(sorted(RUNS))
    for _ in range(3):
        process = start(RUNS[run][0], folder / "out")
        time.sleep(any_moment(run, chance))
        process.kill()
        process.communicate()
    yield from finished(run, folder / "out")


def twins(folder: Path, chance: Random) -> Faults:
    """Two processes in one folder: one is told of the other, or they share the work."""
    run = chance.choice(["train", "sample", "compare"])
    first = start(RUNS[run][0], folder / "out")
    time.sleep(chance.choice([0.0, any_moment(run, chance)]))
    ends = [end(process) for process in (first, start(RUNS[run][0], folder / "out"))]
    for status, said in ends:
        told = status == 2 and len(said) == 1 and "is being written by process" in said[0]
        if (status or said) and (run == "sample" or not told):
            yield f"{run}: twin with status {status}: {said[-3:]}"
    if all(status for status, _ in ends):
        yield f"{run}: both twins fail"
    yield from same(run, folder / "out")


def limited(folder: Path, chance: Random) -> Faults:
    """A limit on the size of files, as of a quota: a line that names the file and the bytes."""
    run = chance.choice(sorted(RUNS))
    process = start(RUNS[run][0], folder / "out", limit=int(2 ** chance.uniform(6, 18)))
    yield from without_room(run, folder / "out", process)
    yield from finished(run, folder / "out")


def full(folder: Path, chance: Random) -> Faults:
    """A disk that is full at any moment of a run."""
    run, size = chance.choice(sorted(RUNS)), int(2 ** chance.uniform(13, 20))
    with small_disk(folder / "disk", size) as mounted:
        if mounted:
            out = folder / "disk" / "out"
            yield from without_room(run, out, start(RUNS[run][0], out))
            if out.exists():
                shutil.copytree(out, folder / "out")
            yield from finished(run, folder / "out")


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """Mount a disk of so many bytes, which takes a superuser; yield whether it could be."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(words, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def without_room(run: str, out: Path, process: Any) -> Faults:
    """Tell what is wrong with the end of a run that had no room."""
    status, said = end(process)
    named = len(said) == 1 and str(out) in said[0] and "bytes" in said[0]
    if status not in (0, 2) or (status == 2 and not named):
        yield f"{run}: status {status} without room: {[line.replace(str(out), 'OUT') for line in said[-3:]]}"


def lost_rank(folder: Path, chance: Random) -> Faults:
    """One of two processes of torchrun is killed: the other says so in a line; another number goes on."""
    out, logs = folder / "out", folder / "logs"
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone")
    redirected = ("-r", "3", "--log-dir", str(logs))
    process = start(TRAIN, out, launcher=(*launcher, *redirected))
    time.sleep(any_moment("train", chance) + 2)
    ranks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    if ranks:
        os.kill(int(chance.choice(ranks)), signal.SIGKILL)
    status, _ = end(process)
    for path in logs.rglob("stderr.log"):
        said = [line for line in path.read_text().splitlines() if not line.startswith(_NOTES)]
        if len(said) > 1 or status < 0:
            yield f"rank: status {status}, {len(said)} lines: {said[:3]}"
    status, said = end(start(TRAIN, out, launcher=chance.choice([(), launcher])))
    if status or not (out / "flow.safetensors").exists():
        yield f"resumed with another number of processes: status {status}: {said[-3:]}"


ATTACKS: dict[str, Callable[[Path, Random], Faults]] = {
    "signals": signalled,
    "kills": killed,
    "twins": twins,
    "file sizes": limited,
    "full disks": full,
    "lost ranks": lost_rank,
}
