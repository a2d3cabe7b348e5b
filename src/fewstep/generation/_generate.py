"""Generation of many samples into a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import torch

from .._adaptive import Adaptive
from .._conditions import most_rows
from .._device import check_device, device_name
from .._extras import require
from .._hashing import fingerprint
from .._names import check_name
from .._progress import progress_bar
from .._ranges import COUNT, NATURAL, check_range
from .._version import __version__
from ..data import is_picture
from ..field import Field, check_field
from ..solver import Solver
from ._observer import Observer
from ._plan import Block, blocks, draw
from ._records import Records
from ._writer import BlockWriter, Layout

__all__ = ["FORMATS", "generate"]

#: File formats of samples.
FORMATS = ("png", "npz", "safetensors", "pairs", "sheet")


def generate(
    field: Field,
    solver: Solver | Adaptive,
    seeds: Iterable[int],
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    formats: Sequence[str] = ("safetensors",),
    batch: int = 256,
    shard: int = 1000,
    save_noise: bool = False,
    save_trajectory: int = 0,
    device: torch.device | str | None = None,
    rank: int = 0,
    world: int = 1,
    progress: bool = False,
    provenance: Mapping[str, Any] | None = None,
    conditions: Mapping[str, Any] | None = None,
    per_sample: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Generate the samples with the given numbers and write them to a folder.

    Sample ``k`` comes from noise ``k`` of :func:`fewstep.noise`, which is the same to the bit whatever the
    batch and the number of processes, so samples of two solvers can be compared one by one. Samples are made
    in blocks of ``shard`` consecutive numbers; a block whose files are complete is not made again, so
    repeating an interrupted call resumes it, and passing more ``seeds`` extends the folder. The noises that a
    solver adds to sample ``k`` are those of :func:`fewstep.noises`.

    The samples of other batches are the same up to rounding, as kernels add in another order. They are the
    same to the bit where the network is called with the same batches, on one kind of machine: for all
    ``seeds`` that are whole blocks and any number of processes, with the same ``batch`` and ``shard``; and
    for any ``seeds`` and ``shard`` with ``batch=1``.

    Args:
        field: the field; its model must be on ``device``. A model without weights needs a name to add to a
            folder that has samples, or to share one between processes.
        solver: a table, or :class:`~fewstep.Adaptive`.
        seeds: numbers of the samples, in any order, none twice: ``range(50_000)``.
        out: the folder.
        seed: seed of the noises.
        formats: among ``"png"`` (8-bit pictures ``png/00000042.png``, of samples in [-1, 1]), ``"npz"``
            (``samples`` as uint8 ``(n, H, W, C)`` for pictures, else as float32, and ``seeds``),
            ``"safetensors"`` (``samples`` as float32, and ``seeds``) and ``"pairs"`` (``x0`` and ``x1`` as
            float32, and ``seeds``; :meth:`fewstep.Pairs.load` reads them), which write one file per block,
            such as ``pairs-00001000-00001999.safetensors``, and ``"sheet"``, the first pictures side by side.
        batch: samples per batch; they depend on it by rounding alone.
        shard: samples per block.
        save_noise: write the noises too, as ``noise-*.npz``.
        save_trajectory: write the paths of the first so many samples to ``trajectory.npz``: ``states`` and
            ``data``, the network's estimate of the data there, as ``(P, K, ...)``, and ``times``, as
            ``(P, K)``; pictures as strips too.
        device: device to sample on; by default that of the network.
        rank: number of this process, from 0; it makes every ``world``-th block.
        world: number of processes, which all call this with the same arguments.
        progress: show a progress bar of this process's samples.
        provenance: further facts for the result's protocol, such as where the solver came from.
        conditions: keyword arguments of the network that all samples share.
        per_sample: those with one row per sample, in the order of their numbers, or one row for all;
            see :meth:`Field.bind`.

    Returns:
        Content of ``result.json``: ``count``, ``nfe`` (mean, min and max over samples), ``network_calls``,
        ``curvature`` (per dimension, on the solver's own points), ``seconds``, ``samples_per_second``,
        ``files`` and ``protocol``. While other processes are still working, only
        ``{"complete": False, "count": n}`` with the number of samples that this process made.

    Raises:
        OSError: when the folder cannot be written, or the disk is too full.
        ValueError: when an argument is wrong, or the folder holds samples made with other settings.
    """
    check_field(field, "generate")
    batch, shard, world = check_range("generate", COUNT, batch=batch, shard=shard, world=world)
    numbers = {"seed": seed, "rank": rank, "save_trajectory": save_trajectory}
    seed, rank, save_trajectory = check_range("generate", NATURAL, **numbers)
    solver = getattr(solver, "solver", solver)  # of a fit
    seeds = _ordered(seeds, per_sample)
    formats, shape, wanted = sorted(set(formats)), field.shape, blocks(seeds, shard)
    total = sum(len(block.seeds) for block in wanted)
    if shape is None:
        raise ValueError("field: does not say what shape it samples; give it Field(..., shape=...).")
    _check(formats, shape, rank, world, save_trajectory, len(wanted[0].seeds))
    device = check_device(field.device if device is None else device)
    bound = field.bind(conditions, per_sample, total)
    layout = Layout(Path(out), shape, formats, save_noise, save_trajectory, single=len(wanted) == 1)
    records = Records(layout, wanted)
    settings = {
        "model": field.describe(),
        "fingerprint": field.fingerprint() if field.identifiable or world > 1 or records.begun() else None,
        "solver": solver.describe(),
        "seed": seed,
        "dtype": "float32",
        "formats": formats,
        "save_noise": save_noise,
        "save_trajectory": save_trajectory,
        "shard": shard,
        "conditions": fingerprint([conditions, per_sample]) if conditions or per_sample else None,
    }
    records.open(settings)
    missing = records.missing()
    own = {block.number for block in wanted[rank::world]}
    mine = [block for block in missing if block.number in own]
    records.check_room(sum(len(block.seeds) for block in missing))
    labels = {"model": field.name, "solver": solver.name}
    machine = {
        "device": device_name(device),
        "batch": batch,
        "processes": world,
        "torch": torch.__version__,
        "fewstep": __version__,
    }

    count = sum(len(block.seeds) for block in mine)
    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        progress_bar(progress, total=count, desc="sampling", unit="sample") as bar,
    ):
        batches = chain.from_iterable(_batches(block, batch) for block in mine)
        draws = _drawn_ahead(pool, batches, shape, seed)
        for block in mine:
            started = time.perf_counter()
            records.begin(block)
            writer = BlockWriter(layout, block, pool)
            seen: list[tuple[torch.Tensor, ...]] = []
            done = 0
            for part in _batches(block, batch):
                x0 = next(draws)
                keep = min(max(save_trajectory - block.start - done, 0), len(part))
                place = slice(block.start + done, block.start + done + len(part))
                observer = Observer(bound.rows(place), solver, keep)
                x1, nfe = observer.sample(x0.to(device), partial(_added, part, seed))
                writer.add(part, x0, x1, observer.paths)
                seen.append((nfe, *observer.curvature()))
                done += len(part)
                bar.update(len(part))
            nfe, curvature, displacement = (torch.cat(column) for column in zip(*seen, strict=True))
            calls = {"nfe": int(nfe.max()), "calls": int(nfe.sum())}
            writer.finish(
                {**calls, "provenance": settings},
                {**labels, "nfe": f"{nfe.double().mean():g}", "seed": str(seed)},
            )
            seconds = time.perf_counter() - started
            records.finish(block, nfe, curvature, displacement, {"seconds": seconds, **machine})
    if records.missing():
        return {"complete": False, "count": count}
    points = len(solver.points) if isinstance(solver, Solver) else None
    return records.result(labels, {**settings, **(provenance or {})}, field.forwards_per_call, points)


def _added(part: list[int], seed: int, k: int, like: torch.Tensor) -> torch.Tensor:
    """Return noise ``k`` that a solver adds to the samples with these numbers."""
    return draw(part, like.shape[1:], seed, stream=k + 1).to(like)


def _ordered(seeds: Iterable[int], per_sample: Mapping[str, Any] | None) -> list[int]:
    """Return the numbers of the samples, which must increase where conditions have a row for each."""
    numbers = list(seeds)
    if any(late < early for early, late in pairwise(numbers)) and most_rows(per_sample or {}):
        raise ValueError(
            "generate: per_sample has its rows in the order of the samples' numbers, so seeds must increase; "
            "sort both together."
        )
    return numbers


def _check(
    formats: Sequence[str],
    shape: tuple[int, ...],
    rank: int,
    world: int,
    save_trajectory: int,
    first: int,
) -> None:
    for name in formats:
        check_name("formats:", name, FORMATS)
    pictures = {"png", "sheet"} & set(formats)
    if pictures and not is_picture(shape):
        raise ValueError(
            f"formats: {min(pictures)} needs samples of shape (1 or 3, H, W), not {shape}; use npz, "
            "safetensors or pairs."
        )
    if pictures or (save_trajectory and is_picture(shape)):
        require("matplotlib.image", "plot")  # now rather than after the first block
    if rank >= world:
        raise ValueError(f"rank: must be from 0 to world - 1 = {world - 1}, not {rank}.")
    if save_trajectory > first:
        raise ValueError(
            f"save_trajectory: must be from 0 to {first}, the samples of the first shard, not "
            f"{save_trajectory}."
        )


def _batches(block: Block, size: int) -> list[list[int]]:
    return [block.seeds[first : first + size] for first in range(0, len(block.seeds), size)]


def _drawn_ahead(
    pool: Executor, batches: Iterable[list[int]], shape: tuple[int, ...], seed: int
) -> Iterator[torch.Tensor]:
    """Yield the noises of batches, drawing the next in a thread while the last are used."""
    waiting = None
    for part in batches:
        following = pool.submit(draw, part, shape, seed)
        if waiting is not None:
            yield waiting.result()
        waiting = following
    if waiting is not None:
        yield waiting.result()
