"""The samples of each training step, a pure function of the seed and the step."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from ..data import Dataset

__all__ = ["Batches", "loader", "seed_default", "stream"]

#: A loaded batch: data, or pairs of noise and data.
Loaded = Tensor | tuple[Tensor, Tensor]


def stream(*key: int) -> int:
    """Return an independent 63-bit seed for the random stream with this key."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_default(seed: int, device: torch.device) -> None:
    """Seed torch's default generators of the CPU and of ``device``.

    ``torch.manual_seed`` seeds all devices and formats a stack trace for each uninitialised kind, which
    costs half a millisecond per training step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(seed)


class Batches(Sampler[list[int]]):
    """An endless sampler of the indices in each part of each step's batch, from step ``start`` on.

    Each epoch has its own order, a function of ``(seed, epoch)``; sample ``k`` of the run does not depend on
    batch size, number of processes or interruptions. A step takes the next ``batch`` of ``count`` samples,
    split evenly over the ``world`` of processes and the accumulated ``parts``.
    """

    def __init__(
        self,
        count: int,
        batch: int,
        *,
        seed: int,
        start: int = 0,
        parts: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch % (parts * world):
            raise ValueError(
                f"batch: must be a multiple of processes times accumulate, {world} x {parts}, not {batch}."
            )
        self.count, self.batch, self.seed, self.start = count, batch, seed, start
        self.parts, self.rank, self.world = parts, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        size = self.batch // (self.parts * self.world)
        epoch, order = -1, torch.empty(0, dtype=torch.long)
        position = self.start * self.batch
        while True:
            for part in range(self.parts):
                first = position + (part * self.world + self.rank) * size
                indices: list[int] = []
                while len(indices) < size:
                    at = first + len(indices)
                    if at // self.count != epoch:
                        epoch = at // self.count
                        generator = torch.Generator().manual_seed(stream(self.seed, epoch))
                        order = torch.randperm(self.count, generator=generator)
                    within = at % self.count
                    indices += order[within : within + size - len(indices)].tolist()
                yield indices
            position += self.batch


def loader(data: Dataset, batches: Batches, workers: int, pin: bool) -> Iterator[Loaded]:
    """Iterate over batches of data in the order of ``batches``, prefetched by ``workers`` processes."""
    return iter(
        DataLoader(
            data,  # type: ignore[arg-type]  # a DataLoader accepts any object with __getitem__
            sampler=batches,
            batch_size=None,
            num_workers=workers,
            pin_memory=pin,
            persistent_workers=workers > 0,
            worker_init_fn=_ignore_interrupts if workers else None,
        )
    )


def _ignore_interrupts(worker: int) -> None:
    """Ignore Ctrl-C, which reaches every process of a terminal; the training process decides when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
