"""Fitted solvers against every classical one, on the flows that the stage ``train`` left.

For each flow and each number of calls: ``fs.fit`` with its default settings; RMSE and PSNR of the fitted
solver and of every classical solver on five grids against the reference, on held-out noises (256 of seed
1,000,003; the fits have seed 0); and the Fréchet distance of 10,000 samples of the fitted solver, of the
classical one with the least RMSE on those noises, and of some that are in wide use, to the exact training
pictures in the features of ResNet-56. The reference itself has a distance, too, which is the model's own.

Precision: the references of fits and of RMSE (dopri5 at tolerances of 1e-6) are in float32 throughout; fits
and RMSE leave PyTorch's TF32 for convolutions on; the 10,000 samples, and their reference at tolerances of
1e-4, come from the network in bfloat16. The part "precision" has what that changes: RMSE between samples of
one solver in float32 and in the others, and the Fréchet distance of each.

Files: fit.json, with all rows of all comparisons under "comparisons"; solvers.tar, the files of the fits, for
fewstep.load.
"""

from __future__ import annotations

import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fewstep as fs
from fewstep.comparison import FeatureQuality
from fewstep.metrics import frechet_distance, rmse
from fewstep.metrics.features import feature_moments

from . import _cifar, _weights
from ._record import Options, Record
from ._timing import without_tf32

__all__ = ["run"]

#: Numbers of calls, the most telling first.
CALLS = (8, 4, 6, 10, 5, 7, 9)
#: Classical solvers in wide use, whose Fréchet distance is measured whatever their RMSE.
KNOWN = ("euler", "midpoint", "dpmpp_2m", "unipc2", "deis3/cosine")
#: Seeds of held-out noises: for RMSE (that of fs.compare), and for samples.
ERROR_SEED, SAMPLE_SEED = 1_000_003, 20_261_129
#: Tolerances of the references in float32, and in bfloat16, whose rounding would not let them be as small.
EXACT: dict[str, float] = {"rtol": 1e-6, "atol": 1e-6}
HALF: dict[str, float] = {"rtol": 1e-4, "atol": 1e-4}

PROTOCOL = " ".join(" ".join((__doc__ or "").split("\n\n")[1:3]).split())


@dataclass(frozen=True)
class Sizes:
    """Numbers of pairs, held-out noises and samples, of samples in a batch, and calls and grids."""

    pairs: int = 256
    errors: int = 256
    samples: int = 10_000
    batch: int = 1000
    calls: tuple[int, ...] = CALLS
    grids: tuple[str, ...] = tuple(fs.classical.GRIDS)


TINY = Sizes(pairs=8, errors=8, samples=16, batch=16, calls=(4,), grids=("uniform",))


@dataclass
class Model:
    """A flow in float32 and in half precision, its pairs, and network calls a second of either."""

    field: fs.Field
    half: fs.Field
    train: fs.Pairs
    tests: fs.Pairs
    samples: fs.Pairs
    rate: float
    half_rate: float


def run(options: Options) -> dict[str, Any]:
    """Fit and compare, in the order of importance, until the deadline."""
    if options.weights is None:
        raise ValueError("weights: this stage needs the folder that the stage train wrote; give --weights.")
    sizes = TINY if options.tiny else Sizes()
    record = Record("fit", PROTOCOL, options)
    record.part("reference", "network calls a second, and the references of both sets of noises")
    record.part("precision", "midpoint with 8 calls in each precision, against float32 throughout")
    record.part("errors", "fitted, against the classical solver with the least RMSE on the same noises")
    record.part("quality", "Fréchet distance of samples in bfloat16")
    networks, facts = _weights.load(options.weights)
    quality = _cifar.quality(options)
    record.content |= {"facts": facts, "quality": quality.describe(), "comparisons": {}}
    models: dict[str, Model] = {}
    for name, network in networks.items():
        if name.endswith(".flow"):
            flow = name.removesuffix(".flow")
            make = partial(_prepare, record, models, flow, network.to(options.device), sizes)
            record.attempt(f"reference {flow}", 0 if options.tiny else 20, make)
    with tempfile.TemporaryDirectory() as scratch:
        stage = Stage(record, quality, sizes, Path(scratch))
        for nfe in sizes.calls:
            for name, model in models.items():
                stage.errors(name, model, nfe)
        for name, model in models.items():
            seconds = 0 if options.tiny else 3 * 8 * sizes.samples / model.rate
            record.attempt(f"precision {name}", seconds, partial(_precision, record, name, model, quality))
        for nfe in sizes.calls:
            for name, model in models.items():
                stage.quality(name, model, nfe, KNOWN)
    return record.finish()


def _prepare(record: Record, models: dict[str, Model], name: str, network: nn.Module, sizes: Sizes) -> None:
    """Make the fields of a flow and their references."""
    device, shape = record.options.device, tuple(record.content["facts"]["shape"])
    field, half = (_cifar.field(network, name, shape, half=kind) for kind in (False, True))
    made: list[fs.Pairs] = []
    with without_tf32():
        for count, seed in ((sizes.pairs, 0), (sizes.errors, ERROR_SEED)):
            x0 = fs.noise(count, shape, seed=seed, device=device)
            made.append(fs.reference.pairs(field, x0, batch=256, provenance={"seed": seed}, **EXACT))
    x0 = fs.noise(sizes.samples, shape, seed=SAMPLE_SEED, device=device)
    samples = fs.reference.pairs(half, x0, batch=sizes.batch, provenance={"seed": SAMPLE_SEED}, **HALF)
    rate, half_rate = _rate(field, made[1]), _rate(half, samples[: sizes.batch])
    models[name] = Model(field, half, *made, samples, rate, half_rate)
    record.row(
        "reference", model=name, calls_per_second=rate, calls_per_second_half=half_rate, nfe=made[1].nfe,
        error=made[1].error, nfe_half=samples.nfe, error_half=samples.error,
    )  # fmt: skip


def _rate(field: fs.Field, pairs: fs.Pairs) -> float:
    """Return the network calls a second in batches of the pairs."""
    for _ in range(2):  # the first one warms up
        started = time.perf_counter()
        fs.classical.euler(4).sample(field, pairs.x0).sum().item()
    return 4 * len(pairs) / (time.perf_counter() - started)


class Stage:
    """Fits and comparisons of one number of calls at a time."""

    def __init__(self, record: Record, measure: FeatureQuality, sizes: Sizes, scratch: Path) -> None:
        self.record, self.measure, self.sizes, self.scratch = record, measure, sizes, scratch
        #: The solvers whose samples have been measured, by model and number of calls.
        self._measured: set[tuple[str, int, str]] = set()

    def errors(self, name: str, model: Model, nfe: int) -> None:
        """Fit with ``nfe`` calls, compare with classical solvers, and measure the quality of the two best."""
        solvers = fs.classical.baselines(nfe, model.field.schedule, self.sizes.grids)
        # Default fits take about 4,000 network calls times the square of the number of calls.
        calls = nfe * self.sizes.errors * len(solvers) + 4000 * nfe**2
        found: dict[str, fs.Solver] = {}
        compare = partial(self._errors, name, model, nfe, solvers, found)
        self.record.attempt(f"errors {name}, {nfe} calls", self._seconds(calls / model.rate), compare)
        if found:
            self._quality(name, model, nfe, found)

    def quality(self, name: str, model: Model, nfe: int, names: Sequence[str]) -> None:
        """Measure the quality of some classical solvers, where it has not been."""
        known = fs.classical.baselines(nfe, model.field.schedule, list(fs.classical.GRIDS))
        self._quality(name, model, nfe, {each: known[each] for each in names if each in known})

    def _seconds(self, seconds: float) -> float:
        return 0 if self.record.options.tiny else seconds

    def _errors(
        self, name: str, model: Model, nfe: int, solvers: dict[str, fs.Solver], found: dict[str, fs.Solver]
    ) -> None:
        fit = fs.fit(model.field, nfe, pairs=model.train)
        fit.save(self.scratch / "fits" / f"{name}-{nfe}.json")
        with tarfile.open(self.record.options.out / "solvers.tar", "w") as archive:
            archive.add(self.scratch / "fits", arcname="solvers")
        rivals = {"fitted": fit.solver, **solvers}
        rows = fs.compare(model.field, rivals, noise=model.tests, batch=self.sizes.errors).rows
        keys = ("solver", "rmse", "rmse_low", "rmse_high", "psnr", "psnr_low", "psnr_high", "failure")
        own, *others = kept = [{key: row[key] for key in keys if key in row} for row in rows]
        self.record.content["comparisons"].setdefault(name, {})[nfe] = kept
        whole = [row for row in others if "failure" not in row]
        best, best_psnr = min(whole, key=lambda row: row["rmse"]), max(whole, key=lambda row: row["psnr"])
        self.record.row(
            "errors", model=name, nfe=nfe, rmse=own["rmse"], best=best["solver"], best_rmse=best["rmse"],
            ratio=own["rmse"] / best["rmse"], psnr=own["psnr"], best_by_psnr=best_psnr["solver"],
            gain_db=own["psnr"] - best_psnr["psnr"], network_calls=fit.report.calls["fit"],
            fit_seconds=fit.report.seconds["fit"], classical=len(others), failed=len(others) - len(whole),
        )  # fmt: skip
        found |= {each: rivals[each] for each in ("fitted", best["solver"])}

    def _quality(self, name: str, model: Model, nfe: int, solvers: dict[str, fs.Solver]) -> None:
        new = {each: solver for each, solver in solvers.items() if (name, nfe, each) not in self._measured}
        # Each sample is drawn, and mapped to features in a second or two.
        seconds = self._seconds(len(new) * (self.sizes.samples * nfe / model.half_rate + 2))
        if new:
            compare = partial(self._distances, name, model, nfe, new)
            self.record.attempt(f"quality {name}, {nfe} calls", seconds, compare)

    def _distances(self, name: str, model: Model, nfe: int, solvers: dict[str, fs.Solver]) -> None:
        # The cache keeps the figures of the reference from one number of calls to the next.
        found = fs.compare(
            model.half, solvers, noise=model.samples, quality=self.measure, batch=self.sizes.batch,
            cache=self.scratch / "cache", **HALF,
        )  # fmt: skip
        distance = self.measure.names[0]
        reference = found.protocol["reference"][distance]
        for row in found.rows:
            self.record.row(
                "quality", model=name, nfe=nfe, solver=row["solver"], samples=len(model.samples),
                reference=reference, **{distance: row[distance]},
            )  # fmt: skip
            self._measured.add((name, nfe, row["solver"]))


def _precision(record: Record, name: str, model: Model, quality: FeatureQuality) -> None:
    """Compare the same samples in each precision."""
    solver, samples = fs.classical.midpoint(4), {}
    x0 = model.samples.x0
    with without_tf32():
        samples["float32"] = [solver.sample(model.field, part) for part in x0.split(1000)]
    samples["float32, convolutions in TF32"] = [solver.sample(model.field, part) for part in x0.split(1000)]
    samples["bfloat16"] = [solver.sample(model.half, part) for part in x0.split(1000)]
    exact = torch.cat(samples["float32"])
    for precision, parts in samples.items():
        x1 = torch.cat(parts)
        distance = frechet_distance(feature_moments(x1.cpu(), quality.network, batch=1000), quality.real)
        values = {"rmse": float(rmse(x1, exact)), quality.names[0]: distance}
        record.row("precision", model=name, precision=precision, samples=len(x1), **values)
