"""Records of a folder of samples: its settings, the facts of its blocks, and the result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from .._files import check_room, sweep
from .._json import finite
from .._json_file import write_json
from .._reading import check, read_object, reading
from ._plan import Block, parse_ranges, spell
from ._writer import Layout

__all__ = ["Records"]

#: Kinds of the facts of a block.
_BLOCK = {
    "seeds": str,
    "count": int,
    "files": [str],
    "nfe": {"sum": int, "min": int, "max": int},
    "curvature": (float, None),
    "displacement": (float, None),
    "seconds": float,
    "device": str,
    "batch": int,
    "processes": int,
    "torch": str,
    "fewstep": str,
}


class Records:
    """The JSON files of a folder: its settings, the facts of every block, and the result.

    The facts of a block are written last, so if they exist, its files are complete. Processes need no other
    communication: each makes its own blocks, and the one that finds all blocks complete writes the result.
    """

    def __init__(self, layout: Layout, wanted: Sequence[Block]) -> None:
        self._layout, self._folder, self._wanted = layout, layout.folder, wanted

    def open(self, settings: Mapping[str, Any]) -> None:
        """Make the folder, or check that its samples have the same settings and are still wanted.

        Raises:
            OSError: when it cannot be written.
            ValueError: when it holds other samples.
        """
        path = self._folder / "generate.json"
        new = json.loads(json.dumps(finite(settings)))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            old = _read(path) if path.exists() else new
            # Also if the file exists, to check that the folder can be written.
            write_json(path, old)
            for folder in ["blocks", *(["png"] if self._layout.png else [])]:
                (self._folder / folder).mkdir(exist_ok=True)
            sweep(self._folder)
        except OSError as error:
            raise OSError(
                f"out: {self._folder} cannot be written ({error.strerror or error}); choose another folder."
            ) from None
        if old != new:
            key = next(key for key in {**old, **new} if old.get(key) != new.get(key))
            raise ValueError(
                f"out: {self._folder} holds samples made with {key} = {json.dumps(old.get(key))}, not "
                f"{json.dumps(new.get(key))}; choose another folder, or remove that one."
            )
        known = [k for facts in self._all_facts() for k in parse_ranges(facts["seeds"])]
        extra = sorted(set(known) - {k for block in self._wanted for k in block.seeds})
        if extra:
            raise ValueError(
                f"out: {self._folder} holds samples {spell(sorted(known))}, more than were asked for; ask "
                "for those too, or choose another folder."
            )

    def begun(self) -> bool:
        """Return whether the folder has blocks of samples."""
        return bool(self._all_facts())

    def missing(self) -> list[Block]:
        """Return the blocks whose files are not complete."""
        return [block for block in self._wanted if not self._complete(block)]

    def check_room(self, samples: int) -> None:
        """Raise an ``OSError`` when the disk has no room for so many samples."""
        needed, advice = self._layout.size(samples), "choose another folder, or format png"
        check_room(self._folder, needed, f"{samples} samples", advice)

    def begin(self, block: Block) -> None:
        """Delete an earlier, smaller version of a block, and the result that included it."""
        (self._folder / "result.json").unlink(missing_ok=True)
        path = self._path(block)
        if path.exists():
            old = _read_block(path)
            path.unlink()
            for name in set(old["files"]) - set(self._layout.once.values()):
                (self._folder / name).unlink(missing_ok=True)

    def finish(
        self, block: Block, nfe: Tensor, curvature: Tensor, displacement: Tensor, facts: Mapping[str, Any]
    ) -> None:
        """Record that a block is complete, with the numbers of its samples that the result needs."""
        content = {
            "seeds": spell(block.seeds),
            "count": len(block.seeds),
            "files": [path.name for path in self._layout.of_block(block).values()],
            "nfe": {"sum": int(nfe.sum()), "min": int(nfe.min()), "max": int(nfe.max())},
            "curvature": float(curvature.sum()),
            "displacement": float(displacement.sum()),
            **facts,
        }
        write_json(self._path(block), content)

    def result(
        self,
        labels: Mapping[str, str],
        protocol: Mapping[str, Any],
        forwards: int,  # of the network per call
        points: int | None,  # of each trajectory, if all have the same number
    ) -> dict[str, Any]:
        """Return the facts of all blocks together, and write them to ``result.json``."""
        facts = self._all_facts()
        count = sum(part["count"] for part in facts)
        calls = sum(part["nfe"]["sum"] for part in facts)
        seconds = sum(part["seconds"] for part in facts)
        displacement = sum(part["displacement"] for part in facts) / count
        # A path of one step is straight for every flow.
        seen = sum(part["curvature"] for part in facts) / count if points != 2 else None
        content: dict[str, Any] = {
            "complete": True,
            **labels,
            "count": count,
            "nfe": {
                "mean": calls / count,
                "min": min(part["nfe"]["min"] for part in facts),
                "max": max(part["nfe"]["max"] for part in facts),
            },
            "network_calls": calls,
            "network_forwards": calls * forwards,
            "curvature": {
                "mean": seen,
                "relative": None if seen is None or not displacement else seen / displacement,
                "points": points or "accepted steps",
            },
            "seconds": seconds,
            "samples_per_second": count / seconds,
            "files": {**self._layout.summary(), "result": str(self._folder / "result.json")},
            "protocol": {
                "seeds": spell([k for block in self._wanted for k in block.seeds]),
                **protocol,
                **{
                    key: sorted({part[key] for part in facts})
                    for key in ("device", "batch", "processes", "torch", "fewstep")
                },
                "noise": "numpy Philox keyed by (seed, number of the sample), drawn in float64",
                "seconds": "sum over processes, writing of files included",
            },
        }
        result: dict[str, Any] = finite(content)
        write_json(self._folder / "result.json", result)
        return result

    def _path(self, block: Block) -> Path:
        return self._folder / "blocks" / f"{block.number:06d}.json"

    def _all_facts(self) -> list[dict[str, Any]]:
        paths = sorted((self._folder / "blocks").glob("[0-9]*.json"))
        return [_read_block(path) for path in paths]

    def _complete(self, block: Block) -> bool:
        path, files = self._path(block), self._layout.of_block(block).values()
        if not path.exists():
            return False
        facts = _read_block(path)
        same = facts["seeds"] == spell(block.seeds) and facts["files"] == [file.name for file in files]
        return same and all(file.exists() for file in [*files, *self._layout.pictures(block.seeds)])


def _read(path: Path) -> dict[str, Any]:
    return read_object(path, "record of samples", "fewstep sample")


def _read_block(path: Path) -> dict[str, Any]:
    facts = _read(path)
    with reading(path, "record of samples", "fewstep sample"):
        check(facts, _BLOCK, "")
        parse_ranges(facts["seeds"])
        if any(Path(name).name != name for name in facts["files"]):
            raise ValueError("files must be names in this folder")
    return facts
