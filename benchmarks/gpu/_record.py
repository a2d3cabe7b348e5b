"""Records of the stages: the machine, the protocol and the rows, written as JSON after every part."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fewstep._device import device_name
from fewstep._files import write_text
from fewstep._json import finite
from fewstep._version import __version__

__all__ = ["STAGES", "Deadline", "Options", "Record", "machine"]

STAGES = ("smoke", "speed", "train", "fit")
#: Packages whose versions a record names, if they are installed.
PACKAGES = ("numpy", "triton", "diffusers", "transformers", "torchdiffeq", "accelerate", "pydantic")


class Deadline:
    """The time by which a stage ends; it starts when it is made.

    Args:
        minutes: minutes from now.
    """

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    @property
    def left(self) -> float:
        """Seconds left, negative afterwards."""
        return self._end - time.monotonic()

    def allows(self, seconds: float) -> bool:
        """True if a part of this length would end in time."""
        return self.left > seconds


@dataclass(frozen=True)
class Options:
    """Options of a stage.

    Args:
        out: folder of the records.
        minutes: minutes that the stage may take.
        tiny: use miniature networks and few repetitions, to rehearse on a CPU.
        device: device of the measurements.
        deadline: the end of these minutes.
        data: folder of ``cifar10/`` and ``features/``.
        weights: folder that the stage ``train`` wrote.
        tests: test files or folders, for ``smoke``.
        parts: parts to run, for ``speed``; all if empty.
    """

    out: Path
    minutes: float
    tiny: bool
    device: torch.device
    deadline: Deadline
    data: Path | None = None
    weights: Path | None = None
    tests: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()


class Record:
    """The record of a stage, in ``out/STAGE.json``.

    Args:
        stage: name of the stage.
        protocol: what holds for all its rows.
        options: the stage's options.
    """

    def __init__(self, stage: str, protocol: str, options: Options) -> None:
        self.options, self._started = options, time.monotonic()
        self.content: dict[str, Any] = {
            "stage": stage,
            "finished": False,
            "seconds": 0.0,
            "minutes": options.minutes,
            "tiny": options.tiny,
            "machine": machine(options.device),
            "protocol": protocol,
            "parts": {},
            "rows": [],
            "left_out": [],
        }
        self.write()

    def part(self, name: str, protocol: str) -> None:
        """Describe a part of the stage: what its rows measure, and how."""
        self.content["parts"][name] = protocol

    def row(self, part: str, **values: Any) -> None:
        """Add a row of a part that has been described, and print it."""
        if part not in self.content["parts"]:
            raise ValueError(f"Record: part {part!r} has no protocol; describe it by part({part!r}, ...).")
        self.content["rows"].append({"part": part, **values})
        shown = "  ".join(f"{key} {_short(value)}" for key, value in values.items())
        print(f"[{self._seconds:6.1f} s] {part}: {shown}", flush=True)

    def leave_out(self, part: str, reason: str, failed: bool = False) -> None:
        """Record why something is missing; ``failed`` if it was tried and went wrong."""
        self.content["left_out"].append({"part": part, "reason": reason, "failed": failed})
        print(f"[{self._seconds:6.1f} s] {part}: {'FAILED' if failed else 'left out'}: {reason}", flush=True)

    def attempt(self, part: str, seconds: float, function: Callable[[], object]) -> None:
        """Run something that takes about ``seconds``, if the deadline allows, and write the record.

        An error is recorded, and the stage goes on: a machine is rarely at hand, and one failure must not
        take the other rows along.
        """
        left = self.options.deadline.left
        if left < seconds:
            self.leave_out(part, f"needs about {seconds:.0f} s, and {max(left, 0):.0f} s were left")
        else:
            try:
                function()
            except Exception as error:
                self.failure(part, error)
        self.write()

    def failure(self, part: str, error: Exception) -> None:
        """Record an error; that of a package which is not installed is no failure."""
        absent = isinstance(error, ImportError)
        if not absent:
            traceback.print_exception(error)
        text = str(error).strip().split("\n")[0]
        self.leave_out(part, text if absent else f"{type(error).__name__}: {text}", failed=not absent)

    def write(self) -> None:
        """Write the record as it is now, atomically."""
        self.content["seconds"] = round(self._seconds, 1)
        path = self.options.out / f"{self.content['stage']}.json"
        write_text(path, json.dumps(finite(self.content), indent=1) + "\n")

    def finish(self) -> dict[str, Any]:
        """Write the record as complete, and return it."""
        self.content["finished"] = True
        self.write()
        return self.content

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started


def machine(device: torch.device) -> dict[str, Any]:
    """Return the card, its driver and the versions of the software."""
    cuda = device.type == "cuda"
    facts: dict[str, Any] = {"device": device.type, "card": device_name(device)}
    if cuda:
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "capability": f"{properties.major}.{properties.minor}",
            "driver": _driver(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    facts |= {
        "threads": torch.get_num_threads(),
        "tf32": {
            "matmul": torch.backends.cuda.matmul.allow_tf32,
            "convolution": torch.backends.cudnn.allow_tf32,
        },
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fewstep": __version__,
    }
    return facts | {name: version for name in PACKAGES if (version := _version(name)) is not None}


def _driver() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.split()
    return lines[0] if lines else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
