"""Universal solvers: made by one fit to many exact fields, and tested on fields that the fit never saw.

    python benchmarks/universal.py fit 4 6 8             # write the tables of fewstep.classical.universal
    python benchmarks/universal.py test 4 6 8            # test them on networks of MNIST
    python benchmarks/universal.py test 6 --images a.npy # ... and kernel density estimates of any images
    python benchmarks/universal.py leave-out 6           # leave each kind of field out of the fit in turn

Fields of the fit: ``random_mixture`` in 2 to 128 dimensions; mixtures of classes with the spectrum i^-p of
pictures, some with ripples over time as of rough networks; the bundled digits. All have a scale of 1
(``fewstep.classical.data_scale``), by a change of schedule. The solvers are non-stationary, with corrections
to DEIS of order 3 on the cosine grid that start at time 0 and whose rows sum to their times, so that a
constant added to the data is added to the samples. Tests are on 64 to 256 fresh noises. *Listed* is the best
on these noises of the solvers in ``LISTED``; *shifted* that of ``SHIFTED``, with times shifted by the scale
as those of the universal one; *any* that of all baselines on five grids (with --any).
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from learned_solvers import GRIDS, TEST_SEED, squared_errors
from rough_networks import ROUGH
from torch import Tensor, nn

import fewstep as fs
from fewstep._json_file import write_json
from fewstep._table import Table, lower_triangle
from fewstep.classical.universal import TABLES, Standard, data_scale, universal
from fewstep.families import NonStationary, Timesteps
from fewstep.schedules import CondOT

LISTED = (
    *("ab2", "ab2/cosine", "ab3", "ab3/cosine", "deis3", "deis3/cosine", "unipc2", "unipc2/cosine"),
    *("dpmpp_2m", "dpmpp_2m/cosine", "dpmpp_2m/log_snr"),
)
#: Solvers for a shift of time by the scale alone.
SHIFTED = ("ab2", "ab2/cosine", "ab3", "ab3/cosine")
#: Dimensions, modes and width of random mixtures.
MIXTURES = (
    (2, 4, 0.3),
    (8, 3, 0.5),
    (16, 8, 0.2),
    (24, 7, 0.1),
    (32, 6, 0.4),
    (64, 12, 0.15),
    (128, 20, 0.3),
)
#: Dimensions, exponent of the spectrum, classes, share of the variance inside them.
SPECTRA = (
    *((64, 1.0, 4, 0.7), (64, 1.0, 16, 0.3), (128, 1.5, 64, 0.1), (784, 1.2, 1, 1.0), (784, 1.2, 16, 0.3)),
    *((1024, 1.5, 4, 0.7), (256, 1.5, 8, 0.5), (32, 0.5, 16, 0.3)),
)
RIPPLED = ((128, 1.5, 4, 0.7), (64, 1.0, 8, 0.5), (256, 1.2, 16, 0.3), (32, 0.5, 4, 0.7))
PAIRS = 64

#: A solver as a function of the scale of the data.
Made = Callable[[float], fs.Solver]
#: A field by name, and its solvers by number of calls.
Case = tuple[str, fs.Field, dict[int, Made]]


class Spectrum(nn.Module):
    """The exact velocity of a mixture of ``K`` Gaussians with diagonal covariances, ``(K, d)``."""

    def __init__(self, means: Tensor, variances: Tensor) -> None:
        super().__init__()
        self.register_buffer("means", means)
        self.register_buffer("variances", variances)
        self.eval()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        t = t.double().expand(len(x))[:, None, None]
        away = x.double()[:, None] - t * self.means
        v = t**2 * self.variances + (1 - t) ** 2
        p = (-(v.log() + away**2 / v).sum(2) / 2).softmax(1)[:, :, None]
        return (p * (self.means + (t * self.variances - 1 + t) / v * away)).sum(1).to(x.dtype)


def spectrum(d: int, exponent: float, classes: int, inside: float, seed: int) -> Spectrum:
    """Return classes with means and variances along ``i^-exponent``, of mean variance about 1."""
    generator = torch.Generator().manual_seed(seed)
    variance = torch.arange(1, d + 1).double() ** -exponent
    variance = variance / variance.mean()
    own = (torch.randn(classes, d, generator=generator, dtype=torch.float64) / 2).exp()
    means = torch.randn(classes, d, generator=generator, dtype=torch.float64)
    means = means * ((1 - inside) * variance).sqrt()
    return Spectrum(means, inside * variance * own / own.mean(0) + 1e-4)


class Rippled(nn.Module):
    """A velocity with ripples over time, of 3% at first and 15% in the end, in unrelated directions."""

    def __init__(self, network: nn.Module, seed: int) -> None:
        super().__init__()
        self.network, generator = network, torch.Generator().manual_seed(seed)
        self.frequencies = (15 + 25 * torch.rand(4, generator=generator)).tolist()
        self.phases = (2 * math.pi * torch.rand(4, generator=generator)).tolist()
        self.shifts = torch.randint(1, 14, (4,), generator=generator).tolist()
        self.eval()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        u: Tensor = self.network(x, t)
        t = t.expand(len(x))[:, None].to(x)
        size, v = (0.03 + 0.12 * t**6) / math.sqrt(2), u
        for frequency, phase, shift in zip(self.frequencies, self.phases, self.shifts, strict=True):
            v = v + size * (2 * math.pi * frequency * t + phase).sin() * u.roll(shift, 1)
        return v


class Corrections(NonStationary):
    """Non-stationary solvers that start at time 0, and whose rows sum to their times."""

    def table(self, theta: Tensor) -> Table:
        table, n = super().table(theta), self.nfe
        times = torch.cat([table.times.new_zeros(1), table.times[1:]])
        missing = torch.cat([times[1:], times.new_tensor([self.end])]) - table.D.sum(1)
        share = torch.ones(n, n, dtype=torch.float64).tril() / torch.arange(1, n + 1)[:, None]
        return table._replace(times=times, D=table.D + missing[:, None] * share)


def kinds() -> dict[str, list[fs.Field]]:
    """Return the fields of the fit, by kind."""
    spectra = [spectrum(*given, seed=100 + k) for k, given in enumerate(SPECTRA)]
    rippled = [Rippled(spectrum(*given, seed=200 + k), k) for k, given in enumerate(RIPPLED)]
    known = [*zip(spectra, SPECTRA, strict=True), *zip(rippled, RIPPLED, strict=True)]
    return {
        "mixtures": [
            fs.models.random_mixture(d, k, std=s).field(f"{k} modes of {s:g}, {d} dimensions")
            for d, k, s in MIXTURES
        ],
        "spectra": [
            fs.Field(
                network, shape=(d,), name=f"{'rippled ' * isinstance(network, Rippled)}{k} of i^-{p:g}, {d}"
            )
            for network, (d, p, k, _) in known
        ],
        "digits": [fs.models.bundled(name) for name in ("digits", "digits-kde")],
    }


def together(fields: Iterable[list[fs.Field]]) -> list[fs.Field]:
    return list(chain.from_iterable(fields))


def unseen(images: list[str]) -> Iterator[tuple[str, fs.Field]]:
    """Yield kernel density estimates of the given images, and networks of MNIST."""
    for entry in images:
        name, _, path = entry.partition("=")
        yield name, fs.models.GaussianMixture(torch.from_numpy(np.load(path)), 0.1).field(name)
    yield "mnist", fs.models.bundled("mnist")
    yield "rough-flow", ROUGH["rough-flow"]()


def pairs(field: fs.Field, count: int, seed: int) -> fs.Pairs:
    return fs.reference.pairs(field, fs.noise(count, field.shape or (), seed=seed), rtol=1e-5, atol=1e-5)


def fitted(nfe: int, fields: list[fs.Field]) -> fs.Solver:
    """Return the solver of one fit to all fields, at a scale of 1."""
    standard, made = [], []
    for field in fields:
        own = pairs(field, PAIRS, 0)
        scale = data_scale(own.x1)
        standard.append(field.reschedule(Standard(scale)))
        made.append(fs.Pairs(own.x0, own.x1 / scale))
    family = Corrections(Timesteps("deis3/cosine", nfe, decoupled=True))
    return fs.fit(standard, nfe, family=family, pairs=made).solver


def keep(nfe: int, solver: fs.Solver) -> None:
    """Write the numbers of a solver among the tables of the package."""
    path = Path(fs.classical.__file__).with_name(TABLES)
    tables = json.loads(path.read_text()) if path.exists() else {}
    times, a, b = solver.table.unroll()
    tables[str(nfe)] = {"times": times.tolist(), "a": a.tolist(), "b": lower_triangle(b)}
    write_json(path, dict(sorted(tables.items(), key=lambda entry: int(entry[0]))))


def measured(solver: fs.Solver, field: fs.Field, tests: fs.Pairs) -> float:
    return float(squared_errors(solver, field, tests).sqrt().mean())


def rows(name: str, field: fs.Field, solvers: dict[int, Made], grids: tuple[str, ...]) -> Iterator[list[str]]:
    """Yield lines of the table: RMSE of universal and of classical solvers on fresh noises."""
    size = math.prod(field.shape or ())
    tests = pairs(field, 64 if size > 500 else 256, TEST_SEED)
    # As a user without data would: the scale of samples of a classical solver.
    scale = data_scale(
        fs.classical.named("deis3/cosine", 8).sample(field, fs.noise(PAIRS, field.shape, seed=1))
    )
    standard = Standard(scale)
    for nfe, made in solvers.items():
        error = measured(made(scale), field, tests)
        rivals = [{n: fs.classical.named(n, nfe) for n in LISTED}]
        rivals.append({n: fs.classical.named(n, nfe).reschedule(standard, CondOT()) for n in SHIFTED})
        if grids:
            rivals.append(fs.classical.baselines(nfe, None, grids))
        cells = [name, f"{scale:.2f}", str(nfe), f"{error:.4f}"]
        for every in rivals:
            errors = {n: measured(solver, field, tests) for n, solver in every.items()}
            best = min((n for n in errors if math.isfinite(errors[n])), key=lambda n: errors[n])
            cells += [f"{best}, {errors[best]:.4f}", f"{error / errors[best]:.2f}"]
        yield cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("study", choices=("fit", "test", "leave-out"))
    parser.add_argument("calls", type=int, nargs="+")
    parser.add_argument("--images", nargs="*", default=[], help="NAME=FILE.npy of images, (N, C, H, W)")
    parser.add_argument("--any", action="store_true", help="measure all classical solvers on five grids, too")
    parser.add_argument("--kind", help="the only kind to leave out: mixtures, spectra or digits")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", "solver")  # of another field than fitted
    if args.study == "fit":
        for nfe in args.calls:
            keep(nfe, fitted(nfe, together(kinds().values())))
        return
    head = ["field", "scale", "calls", "universal", "listed", "ratio", "shifted", "ratio"]
    head += ["any", "ratio"] if args.any else []
    print_row(head)
    print_row(["---"] * len(head))
    cases = tested(args.calls, args.images) if args.study == "test" else left_out(args.calls, args.kind)
    for name, field, solvers in cases:
        for cells in rows(name, field, solvers, GRIDS if args.any else ()):
            print_row(cells)


def tested(calls: list[int], images: list[str]) -> Iterator[Case]:
    """Yield networks and real data, with the solvers of the package."""
    for name, field in unseen(images):
        yield name, field, {n: lambda scale, n=n: universal(n, scale=scale) for n in calls}


def left_out(calls: list[int], only: str | None) -> Iterator[Case]:
    """Yield the fields of each kind, with solvers of a fit to the other kinds."""
    every = kinds()
    for kind in [only] if only else every:
        others = together(fields for other, fields in every.items() if other != kind)
        made = {n: fitted(n, others) for n in calls}
        for field in every[kind]:
            solvers = {
                n: lambda scale, own=own: own.reschedule(Standard(scale), CondOT()) for n, own in made.items()
            }
            yield field.name, field, solvers


def print_row(cells: list[str]) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
