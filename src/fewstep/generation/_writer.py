"""Writing of one block of samples in all requested formats."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .._extras import require
from .._files import replacing, write_safetensors
from ..data import is_picture, save_pictures, to_uint8
from ..pairs import Pairs
from ._observer import Point, stack_paths
from ._plan import Block

__all__ = ["BlockWriter", "Layout"]

#: Pictures on the contact sheet, at most.
_SHEET = 256
#: Points on the strip of a trajectory, at most.
_STRIP = 16


class Layout:
    """Paths of the files in a folder of samples."""

    def __init__(
        self,
        folder: Path,
        shape: tuple[int, ...],
        formats: Collection[str],
        save_noise: bool,
        paths: int,  # number of samples, the first ones, whose paths are written
        single: bool,  # all samples are in one block
    ) -> None:
        self.folder, self.shape, self.paths, self.png = folder, shape, paths, "png" in formats
        self.patterns: dict[str, str] = {}
        if "safetensors" in formats:
            self.patterns["samples"] = "samples.safetensors" if single else "samples-*.safetensors"
        if "npz" in formats:
            self.patterns["npz"] = "samples-*.npz"
        if "pairs" in formats:
            self.patterns["pairs"] = "pairs-*.safetensors"
        if save_noise:
            self.patterns["noise"] = "noise-*.npz"
        self.once: dict[str, str] = {"picture": "samples.png"} if "sheet" in formats else {}
        if paths:
            self.once["trajectory"] = "trajectory.npz"
            if is_picture(shape):
                self.once["states"], self.once["data"] = "trajectory-states.png", "trajectory-data.png"

    def of_block(self, block: Block) -> dict[str, Path]:
        """Return the files of a block by kind, without pictures of single samples."""
        names = {kind: pattern.replace("*", block.range) for kind, pattern in self.patterns.items()}
        return {
            kind: self.folder / name
            for kind, name in (names | (self.once if block.start == 0 else {})).items()
        }

    def pictures(self, seeds: Sequence[int]) -> list[Path]:
        """Return the files of the pictures of single samples."""
        return [self.folder / "png" / f"{k:08d}.png" for k in seeds] if self.png else []

    def summary(self) -> dict[str, str]:
        """Return the files in the folder by kind; ``*`` stands for the numbers of a block."""
        files = self.patterns | self.once | ({"png": "png"} if self.png else {})
        return {kind: str(self.folder / name) for kind, name in files.items()}

    def size(self, count: int) -> int:
        """Return a lower bound on the bytes of so many samples, as compressed files are not counted."""
        numbers = int(np.prod(self.shape))
        sizes = {"samples": 4, "npz": 1 if is_picture(self.shape) else 4, "pairs": 8, "noise": 4}
        return count * numbers * sum(sizes[kind] for kind in self.patterns)


class BlockWriter:
    """Collects the batches of a block and writes its files; a pool of threads writes single pictures."""

    def __init__(self, layout: Layout, block: Block, pool: Executor) -> None:
        self._files, self._block, self._layout, self._pool = layout.of_block(block), block, layout, pool
        self._waiting: list[Future[None]] = []
        self._noises: list[Tensor] = []
        self._samples: list[Tensor] = []
        self._pixels: list[Tensor] = []
        self._paths: list[list[Point]] = []

    def add(self, seeds: Sequence[int], x0: Tensor, x1: Tensor, paths: list[list[Point]]) -> None:
        """Add the next batch; ``x0`` on the CPU."""
        kinds, picture = self._files.keys(), is_picture(self._layout.shape)
        if kinds & {"pairs", "noise"}:
            self._noises.append(x0)
        if kinds & {"pairs", "samples"} or not picture:
            self._samples.append(x1.float().cpu())
        if picture:
            self._pixels.append(to_uint8(x1).permute(0, 2, 3, 1).cpu())
            files = self._layout.pictures(seeds)
            if files:
                self._waiting.append(self._pool.submit(_write_pictures, files, self._pixels[-1].numpy()))
        self._paths += paths

    def finish(self, facts: Mapping[str, Any], labels: Mapping[str, str]) -> None:
        """Write all files: those of pairs with the facts, other tensor files with the labels."""
        seeds = torch.tensor(self._block.seeds)
        for kind, path in self._files.items():
            if kind == "samples":
                write_safetensors(path, {"samples": torch.cat(self._samples), "seeds": seeds}, labels)
            elif kind == "pairs":
                Pairs(torch.cat(self._noises), torch.cat(self._samples), seeds=seeds, **facts).save(path)
            elif kind == "npz":
                _write_npz(path, samples=torch.cat(self._pixels or self._samples), seeds=seeds)
            elif kind == "noise":
                _write_npz(path, x0=torch.cat(self._noises), seeds=seeds)
            elif kind == "trajectory":
                _write_npz(path, **stack_paths(self._paths), seeds=seeds[: len(self._paths)])
            elif kind == "picture":
                save_pictures(path, torch.cat(self._pixels)[:_SHEET].permute(0, 3, 1, 2))
            else:
                _write_strips(path, stack_paths(self._paths)[kind])
        for written in self._waiting:
            written.result()


def _write_pictures(paths: Sequence[Path], pixels: npt.NDArray[np.uint8]) -> None:
    image = require("PIL.Image", "plot")
    for path, picture in zip(paths, pixels, strict=True):
        with replacing(path) as temporary:
            grey = picture.shape[2] == 1
            image.fromarray(picture[:, :, 0] if grey else picture).save(temporary, format="png")


def _write_npz(path: Path, **arrays: Tensor) -> None:
    with replacing(path) as temporary:
        content: dict[str, Any] = {name: array.numpy() for name, array in arrays.items()}
        np.savez(temporary, **content)


def _write_strips(path: Path, states: Tensor) -> None:
    """Write one row per sample, with time from left to right."""
    P = len(states)
    columns = sorted({round(i * (P - 1) / (_STRIP - 1)) for i in range(_STRIP)})
    save_pictures(path, states[columns].transpose(0, 1).flatten(0, 1), columns=len(columns))
