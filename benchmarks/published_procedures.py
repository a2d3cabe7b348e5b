"""Published ways to fit a solver, on this project's fields, pairs and noises: error against network calls.

    python benchmarks/published_procedures.py              digits and mixture, 4 and 8 calls; half an hour
    python benchmarks/published_procedures.py --quick      a fiftieth of the long ones, to see it work
    python benchmarks/published_procedures.py digits --nfe 8 --only ours GS

Pairs are the first noises of seed 77 with their reference samples (rtol = atol = 1e-6), tests are 256 noises
of seed 31337, and the error is the mean RMSE a pixel to the reference. Network calls are one for each sample
and evaluation: those of the reference for the pairs that a procedure takes, and its own, validation included.
Backward passes, which only the published procedures make, stand beside them. Each procedure is as it was
published, but for what is said here:

ours   fewstep.fit with its defaults: 256 pairs, or as many as a budget allows.
BNS    (arXiv:2403.01329) a non-stationary solver begun at the midpoint method's table, PSNR loss, Adam, 600
       thousand rollouts, 520 pairs. Deviations: batches of 40 and a learning rate of 2e-3, decayed linearly,
       are ours; the iterate is chosen on 64 further pairs.
LD3    (arXiv:2405.15506) times and decoupled times of DPM-Solver++(2M) and of iPNDM, 100 pairs, half of them
       to validate, 7 epochs, noises free within a ball of radius 0.001 d / NFE^2. Deviations: RMSE in place
       of LPIPS; batches of 2, Adam at 2e-2, and one step of half the radius along the gradient of each
       noise, projected, are ours.
GS     (arXiv:2510.17699, without its adversarial loss) corrections to DPM-Solver++(3M) with its times and
       decoupled times, Adam at 1e-3 on batches of 24, 10 thousand iterations, gradients clipped at 1, the
       mean of weights with decay 0.999, 1400 pairs. Deviations: L2 of the endpoint in place of LPIPS; the
       last mean is taken, and the grid is uniform in t.

No gradient is recomputed, so that a training rollout costs as many backward passes as calls.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import fewstep as fs
from fewstep.families import Family, NonStationary, Timesteps
from fewstep.fitting._rollout import Rollout
from fewstep.metrics import mean_psnr, per_sample_mse

SEED, TEST_SEED, TEST, PAIRS = 77, 31_337, 256, 1400


class Found(NamedTuple):
    """A fitted solver, the pairs it took, its own network calls and backward passes."""

    solver: fs.Solver
    pairs: int
    calls: int
    backward: int = 0


def ours(field: fs.Field, nfe: int, share: float, max_calls: int | None = None) -> Found:
    """The default, with pairs of its own: the noises of the same seed."""
    fit = fs.fit(field, nfe, seed=SEED, max_calls=max_calls)
    own = sum(count for key, count in fit.report.calls.items() if key not in ("reference", "errors"))
    return Found(fit.solver, sum(fit.report.pairs.values()), own)


class Descent:
    """Adam on a family's parameters by gradients through whole rollouts."""

    def __init__(self, field: fs.Field, family: Family, lr: float, clip: float | None = None) -> None:
        self.rollout, self.family, self.clip = Rollout(field, 4096), family, clip
        self.theta = torch.zeros(family.size, dtype=torch.float64, requires_grad=True)
        self.adam = torch.optim.Adam([self.theta], lr=lr)
        self.backward = 0

    def step(
        self, pairs: fs.Pairs, loss: Callable[[Tensor], Tensor], x0: Tensor | None = None
    ) -> Tensor | None:
        """One step on some pairs, begun elsewhere where ``x0`` is given: returns the gradient in it."""
        begun = pairs if x0 is None else fs.Pairs(x0.requires_grad_(), pairs.x1)
        before = self.rollout.calls
        end = self.rollout.endpoint(self.family.table(self.theta).unroll(), begun)
        wanted = [self.theta] if x0 is None else [self.theta, x0]
        self.theta.grad, *rest = torch.autograd.grad(loss(per_sample_mse(end, pairs.x1)), wanted)
        self.backward += self.rollout.calls - before
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_([self.theta], self.clip)
        self.adam.step()
        return rest[0] if rest else None

    def psnr(self, pairs: fs.Pairs) -> float:
        table = self.family.table(self.theta.detach()).unroll()
        return float(mean_psnr(self.rollout.squared_error(table, pairs)))

    def found(self, theta: Tensor, pairs: int) -> Found:
        return Found(self.family.solver(theta), pairs, self.rollout.calls, self.backward)


def bns(field: fs.Field, nfe: int, share: float, pairs: fs.Pairs) -> Found:
    iterations, batch = round(share * 600_000 / 40), 40
    train, held_out = pairs[:584].split(64)
    descent = Descent(field, NonStationary(fs.classical.midpoint(nfe // 2), field.schedule), lr=2e-3)
    decay = torch.optim.lr_scheduler.LinearLR(descent.adam, 1.0, 1e-3, iterations)
    generator = torch.Generator().manual_seed(0)
    best, theta = descent.psnr(held_out), descent.theta.detach().clone()
    for iteration in range(iterations):
        index = torch.randperm(len(train), generator=generator)[:batch]
        descent.step(train[index], lambda mse: mse.log().mean())
        decay.step()
        if (iteration + 1) % max(1, iterations // 50) == 0 and (psnr := descent.psnr(held_out)) > best:
            best, theta = psnr, descent.theta.detach().clone()
    return descent.found(theta, len(train) + len(held_out))


def ld3(field: fs.Field, nfe: int, pairs: fs.Pairs, base: str) -> Found:
    train, held_out = pairs[:100].split(50)
    descent = Descent(field, Timesteps(base, nfe, field.schedule, decoupled=True), lr=2e-2)
    radius = 0.001 * train.x0[0].numel() / nfe**2
    centre, moved = train.x0, train.x0.clone()
    generator = torch.Generator().manual_seed(0)
    best, theta = descent.psnr(held_out), descent.theta.detach().clone()
    for _ in range(7):
        for index in torch.randperm(len(train), generator=generator).split(2):
            slope = descent.step(train[index], lambda mse: mse.sqrt().mean(), moved[index].clone())
            assert slope is not None
            away = moved[index] - 0.5 * radius * _unit(slope) - centre[index]
            length = away.flatten(1).norm(dim=1)
            moved[index] = centre[index] + away * (radius / length.clamp(min=radius)).reshape(_column(away))
        if (psnr := descent.psnr(held_out)) > best:
            best, theta = psnr, descent.theta.detach().clone()
    return descent.found(theta, 100)


def _unit(x: Tensor) -> Tensor:
    return x / x.flatten(1).norm(dim=1).clamp(min=1e-12).reshape(_column(x))


def _column(x: Tensor) -> tuple[int, ...]:
    return (-1, *[1] * (x.ndim - 1))


def gs(field: fs.Field, nfe: int, share: float, pairs: fs.Pairs) -> Found:
    start = Timesteps("dpmpp_3m", nfe, field.schedule, decoupled=True)
    descent = Descent(field, NonStationary(start, field.schedule), lr=1e-3, clip=1.0)
    generator, mean = torch.Generator().manual_seed(0), descent.theta.detach().clone()
    for iteration in range(round(share * 10_000)):
        index = torch.randperm(len(pairs), generator=generator)[:24]
        descent.step(pairs[index], lambda mse: mse.mean())
        mean.lerp_(descent.theta.detach(), 1 - min(0.999, iteration / (iteration + 10)))
    return descent.found(mean, len(pairs))


def procedures(pairs: fs.Pairs) -> dict[str, Callable[[fs.Field, int, float], Found]]:
    return {
        "ours": ours,
        "ours, 100 thousand calls": lambda *task: ours(*task, max_calls=100_000),
        "LD3 on DPM-Solver++(2M)": lambda field, nfe, share: ld3(field, nfe, pairs, "dpmpp_2m"),
        "LD3 on iPNDM": lambda field, nfe, share: ld3(field, nfe, pairs, "ipndm"),
        "GS": lambda *task: gs(*task, pairs),
        "BNS": lambda *task: bns(*task, pairs),
    }


def study(name: str, nfes: list[int], share: float, only: list[str]) -> Iterator[dict[str, Any]]:
    field = fs.models.bundled(name)
    x0 = fs.noise(PAIRS if share > 0.02 else 640, field.shape or (), seed=SEED)
    pairs = fs.reference.pairs(field, x0, rtol=1e-6, atol=1e-6)
    test = fs.reference.pairs(field, fs.noise(TEST, field.shape or (), seed=TEST_SEED), rtol=1e-6, atol=1e-6)
    for nfe in nfes:
        for label, procedure in procedures(pairs).items():
            if not label.startswith(tuple(only)):
                continue
            started = time.perf_counter()
            found = procedure(field, nfe, share)
            seconds = time.perf_counter() - started
            mse = per_sample_mse(found.solver.sample(field, test.x0), test.x1)
            yield {
                "model": name,
                "nfe": nfe,
                "procedure": label,
                "rmse": float(mse.sqrt().mean()),
                "psnr": float(mean_psnr(mse)),
                "pairs": found.pairs,
                "calls": found.calls + round(pairs.calls * found.pairs / len(pairs)),
                "backward": found.backward,
                "seconds": seconds,
            }


def line(row: dict[str, Any]) -> str:
    return (
        f"| {row['model']} | {row['nfe']} | {row['procedure']} | {row['rmse']:.5f} | {row['psnr']:.1f} | "
        f"{row['pairs']} | {row['calls'] / 1000:,.0f} thousand | {row['backward'] / 1000:,.0f} thousand | "
        f"{row['seconds']:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="*", default=["digits", "mixture"], help="bundled models")
    parser.add_argument("--nfe", nargs="*", type=int, default=[4, 8], help="even numbers of calls")
    parser.add_argument("--only", nargs="*", default=[""], help="procedures whose names begin so")
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the iterations of BNS and GS")
    parser.add_argument("--share", type=float, default=1.0, help="share of the iterations of BNS and GS")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file, too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    print("| field | calls | procedure | RMSE | PSNR | pairs | network calls | backward passes | seconds |")
    print("|" + "---|" * 9)
    for model in args.models:
        for row in study(model, args.nfe, 0.02 if args.quick else args.share, args.only):
            rows.append(row)
            print(line(row), flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
