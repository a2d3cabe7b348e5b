"""Whether offsets, numbers a channel and other bases help: fits on development noises.

    python benchmarks/offsets_and_channels.py                    everything, one JSON line a fit
    python benchmarks/offsets_and_channels.py broad --nfe 4 --pairs 64

Fields: the digits (one channel), and two exact mixtures of 8 modes in 3 channels of 4 numbers, whose channels
have means -1, 0, 1.5 and standard deviations of the modes' centres .2, .6, 1.2. The modes are ``narrow``
(.15) or ``broad`` (.5). Each fit is repeated with pairs of three seeds, and its error is the mean over 256
noises of each of the other two.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

import torch

import fewstep as fs
from fewstep.families import Family, NonStationary, ScaleTime, Timesteps

SEEDS = (77, 99, 31_337)
TEST = 256
#: Noises of the tests are numbered from here, far from those of the pairs.
TESTS_START = 10_000
WIDTHS = {"narrow": 0.15, "broad": 0.5}


def make_field(name: str) -> fs.Field:
    if name not in WIDTHS:
        return fs.models.bundled(name)
    centres = torch.randn(8, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    mean, scale = torch.tensor([[-1.0, 0.0, 1.5], [0.2, 0.6, 1.2]], dtype=torch.float64)[..., None]
    return fs.models.GaussianMixture(mean + scale * centres, WIDTHS[name]).field(name)


def families(field: fs.Field, nfe: int) -> Iterator[tuple[str, str, Family]]:
    """Every family by its name and what is free besides."""
    channels = (field.shape or (1,))[0]
    free: dict[str, dict[str, Any]] = {"": {}, "offset": {"offset": True}}
    if channels > 1:
        free["channels"] = {"channels": channels}
        free["both"] = {"offset": True, "channels": channels}
    start = Timesteps("deis3/cosine", nfe, field.schedule, decoupled=True)
    for label, options in free.items():
        yield "non_stationary", label, NonStationary(start, **options)
        yield "scale_time ab2", label, ScaleTime("ab2", nfe, **options)
        yield "scale_time midpoint", label, ScaleTime("midpoint", nfe // 2, **options)
    for base, stages in (("euler", 1), ("ab3", 1), ("rk4", 4)):
        yield f"scale_time {base}", "", ScaleTime(base, nfe // stages)


def study(name: str, nfe: int, count: int) -> Iterator[dict[str, Any]]:
    """Fit one field at one number of calls."""
    field = make_field(name)
    shape = field.shape or ()
    tests = {
        seed: fs.reference.pairs(
            field, fs.noise(TEST, shape, seed=seed, start=TESTS_START), rtol=1e-6, atol=1e-6
        )
        for seed in SEEDS
    }
    for seed in SEEDS:
        pairs = fs.reference.pairs(field, fs.noise(count, shape, seed=seed), rtol=1e-6, atol=1e-6)
        others = [test for other, test in tests.items() if other != seed]
        for family, label, made in families(field, nfe):
            started = time.perf_counter()
            fitted = fs.fit(field, nfe, family=made, pairs=pairs, baselines=False)
            seconds = time.perf_counter() - started
            ends = [(fitted.solver.sample(field, test.x0), test.x1) for test in others]
            yield {
                **{"field": name, "nfe": nfe, "pairs": count, "seed": seed, "family": family, "free": label},
                "parameters": made.size,
                "rmse": sum(float(fs.metrics.rmse(*end)) for end in ends) / len(ends),
                "psnr": sum(float(fs.metrics.psnr(*end)) for end in ends) / len(ends),
                "calls": fitted.report.calls["fit"],
                "seconds": seconds,
            }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("fields", nargs="*", default=["digits", "broad", "narrow"])
    parser.add_argument("--nfe", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--pairs", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.fields:
        for nfe in options.nfe:
            for row in study(name, nfe, options.pairs):
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
