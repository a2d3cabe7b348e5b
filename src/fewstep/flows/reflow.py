"""Reflow: straightening a flow by training it on its own noise-sample pairs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from .._adaptive import Adaptive
from .._files import only_writer
from .._json_file import write_json
from .._noises import noise
from .._reading import read_object
from ..data import PairShards
from ..field import Field
from ..generation import generate
from ..solver import Solver
from ._batches import stream
from ._monitor import how_straight
from ._run_folder import RunFolder
from .couplings import Paired
from .distill import warm_start
from .objective import FlowMatching
from .settings import Settings
from .trainer import Trainer

__all__ = ["Reflowed", "reflow"]

#: Number of held-out noises for measuring straightness.
_FRESH = 256


class Reflowed(NamedTuple):
    """A straightened flow, and its straightness before and after each round.

    Attributes:
        flow: the network of the last round, in evaluation mode.
        straightness: ``curvature`` per dimension and ``truncation_rmse_4``, the RMSE of 4 Euler steps
            against 32, for the given flow and after each round: one entry more than there are rounds.
    """

    flow: nn.Module
    straightness: list[dict[str, float]]


def reflow(
    field: Field,
    solver: Solver | Adaptive,
    *,
    pairs: int,
    out: str | os.PathLike[str],
    rounds: int = 1,
    settings: Settings | None = None,
    batch: int = 256,
    progress: bool = False,
) -> Reflowed:
    """In each round, make pairs with the flow and continue training it on them.

    Liu, Gong and Liu, *Flow Straight and Fast* (ICLR 2023): each noise is coupled with the sample that the
    flow maps it to, so that the flow trained on the pairs transports the same noises along straighter paths.
    Each round draws fresh noises.

    Every stage resumes: repeating an interrupted call gives the same flow without repeating finished
    stages.

    Args:
        field: the flow: a network in evaluation mode that predicts the velocity under ``CondOT``. Pairs are
            made on its device; training is on the CPU for a network there, else where `accelerate` puts it.
        solver: makes the pairs; use many calls, as the flow learns its error.
        pairs: number of pairs per round.
        out: folder for ``round-1/`` with the pairs and the run (``flow.safetensors``), and so on, and
            ``result.json``.
        rounds: number of rounds; a later call may ask for more.
        settings: training settings; their seed also seeds the noises.
        batch: samples per batch when pairs are made.
        progress: show progress bars.

    Raises:
        OSError: when the disk has no room.
        ValueError: when an argument is wrong, the folder holds another run, or another process writes there.
    """
    settings, out = settings or Settings(), Path(out)
    network, shape = warm_start(field), field.shape
    if shape is None:
        raise ValueError("field: does not say what shape it samples; give it Field(..., shape=...).")
    if min(pairs, rounds) < 1:
        raise ValueError(f"pairs, rounds: must be at least 1, not {pairs} and {rounds}.")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError(
            "reflow: runs in one process; on several devices, make pairs with fewstep.generate(rank=..., "
            "world=...), and train on PairShards with the coupling Paired."
        )
    facts = {"field": field.fingerprint(), "solver": solver.describe(), "pairs": pairs, "seed": settings.seed}
    with only_writer(out):
        weights = sum(p.numel() * p.element_size() for p in network.parameters())
        RunFolder(out, {}, settings).check_space(weights)
        _open(out / "reflow.json", facts)
        device = next(network.parameters()).device
        fresh = noise(_FRESH, shape, seed=stream(settings.seed, 1), device=device)
        figures = [how_straight(field, fresh)]
        for k in range(rounds):
            folder = out / f"round-{k + 1}"
            numbers = range(k * pairs, (k + 1) * pairs)
            generate(
                field,
                solver,
                numbers,
                folder / "pairs",
                seed=settings.seed,
                formats=["pairs"],
                batch=batch,
                device=device,
                progress=progress,
            )
            objective = FlowMatching(warm_start(field), Paired())
            data = PairShards(folder / "pairs")
            on = "cpu" if device.type == "cpu" else None
            trainer = Trainer(objective, data, settings, out=folder, device=on, progress=progress)
            network = trainer.run().to(device)
            field = Field(network, shape=shape, name=f"round {k + 1} of reflow")
            figures.append(how_straight(field, fresh))
            write_json(out / "result.json", {"straightness": figures})
        return Reflowed(network, figures)


def _open(path: Path, facts: Mapping[str, Any]) -> None:
    """Record the facts of a run, or check that the folder's run has the same."""
    new = json.loads(json.dumps(facts))
    old = read_object(path, "record of a reflow", "fewstep reflow") if path.exists() else new
    if old != new:
        key = next(key for key in new if old.get(key) != new[key])
        raise ValueError(
            f"out: {path.parent} holds a reflow with {key} = {json.dumps(old.get(key))}, not "
            f"{json.dumps(new[key])}; choose another folder, or set it back."
        )
    write_json(path, new)
