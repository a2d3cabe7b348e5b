"""Published ways to fit a solver, on this project's fields, pairs and noises: error against network calls.

    python benchmarks/published_procedures.py digits                 4 and 8 calls; half an hour
    python benchmarks/published_procedures.py mixture --share 0.01   a hundredth of the rivals' iterations

Pairs are the first noises of seed 77 with their reference samples (rtol = atol = 1e-6), tests are 256 noises
of seed 31337, and the error is the mean RMSE a pixel to the reference. Network calls are one for each sample
and evaluation: those of the reference for the pairs that a procedure takes, and its own, validation included.
Backward passes stand beside them; no gradient is recomputed, so a training rollout costs as many as calls.
Iterates and settings are chosen by the mean PSNR on validation pairs. Each rival runs as published:

BNS    (arXiv:2403.01329) a non-stationary solver begun at the midpoint method's table, PSNR loss, Adam, 600
       thousand rollouts, 520 pairs. Deviations: batches of 40 and a learning rate of 2e-3, with a cosine
       decay, are ours; the iterate is chosen on 64 further pairs.
LD3    (arXiv:2405.15506 and its code) times of DPM-Solver++(2M) or of iPNDM, 100 pairs, half of them to
       validate after each batch of 2, 7 epochs: RMSprop at .005 with momentum .9 on the times and, after 2
       epochs, SGD at .1 / NFE on those passed to the network. After 5 validations without gain it returns
       to the best and lowers the rates by .8. Noises move by 12 / NFE times their gradient within a ball of
       radius .001 d / NFE^2, where the loss falls. Deviations: RMSE in place of LPIPS; times are a softmax
       in t, as log-SNR has no ends here; the validation noises do not move.
GS     (arXiv:2510.17699, without its adversarial loss) corrections to DPM-Solver++(3M) with its times and
       decoupled times, Adam at 1e-3 on batches of 24, 10 thousand iterations, gradients clipped at 1, the
       mean of weights with decay 0.999, 1400 pairs. Deviations: L2 of the endpoint in place of LPIPS; the
       last mean is taken, and the grid is uniform in t.

and tuned: Adam with a cosine decay on batches of 32 of 192 pairs, with 64 more to validate. The best of two
learning rates and several starts after 600 iterations is a row, and 2000 iterations with its settings are
another. BNS and GS have the same numbers, so they share these rows; LD3 begins at cosine grids.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

import fewstep as fs
from fewstep.families import Family, NonStationary, Timesteps
from fewstep.families.timesteps import SHARE
from fewstep.fitting._rollout import Rollout
from fewstep.metrics import mean_psnr, per_sample_mse

SEED, TEST_SEED, TEST = 77, 31_337, 256
RATES, SHORT, LONG = (0.005, 0.02), 600, 2000

Loss = Callable[[Tensor], Tensor]


class Found(NamedTuple):
    """A fitted solver, its settings, pairs, network calls (but for those of given pairs) and backward passes.

    ``search`` are the calls of runs with other settings, which are not among ``calls``.
    """

    settings: str
    solver: fs.Solver
    pairs: int
    calls: int
    backward: int = 0
    search: int = 0


def ours(field: fs.Field, nfe: int, max_calls: int | None = None) -> Iterator[Found]:
    """The default, with pairs of its own: the noises of the same seed."""
    fit = fs.fit(field, nfe, seed=SEED, max_calls=max_calls)
    calls = sum(count for key, count in fit.report.calls.items() if key != "errors")
    settings = "defaults" if max_calls is None else f"at most {max_calls // 1000} thousand calls"
    yield Found(settings, fit.solver, sum(fit.report.pairs.values()), calls)


class Descent:
    """Parts of a family's parameters, their gradients through whole rollouts, and the best so far."""

    def __init__(self, field: fs.Field, family: Family, held_out: fs.Pairs | None, *sizes: int) -> None:
        self.rollout, self.family, self.held_out = Rollout(field, 4096), family, held_out
        self.parts = [torch.zeros(n, dtype=torch.float64, requires_grad=True) for n in sizes or [family.size]]
        self.backward, self.psnr, self.best = 0, -torch.inf, self.theta
        if held_out is not None:
            self.validate()

    @property
    def theta(self) -> Tensor:
        return torch.cat(self.parts).detach()

    def gradient(self, pairs: fs.Pairs, loss: Loss, clip: float, x0: Tensor | None = None) -> Tensor:
        """Set the parts' gradients; return the squared error of each pair, begun at ``x0`` if it is given."""
        before = self.rollout.calls
        begun = pairs if x0 is None else fs.Pairs(x0, pairs.x1)
        end = self.rollout.endpoint(self.family.table(torch.cat(self.parts)).unroll(), begun)
        mse = per_sample_mse(end, pairs.x1)
        loss(mse).backward(inputs=[*self.parts, *([] if x0 is None else [x0])])
        self.backward += self.rollout.calls - before
        for part in self.parts:
            torch.nn.utils.clip_grad_norm_([part], clip)
        return mse.detach()

    def errors(self, pairs: fs.Pairs) -> Tensor:
        return self.rollout.squared_error(self.family.table(self.theta).unroll(), pairs)

    def validate(self) -> bool:
        """Keep the current parameters if they are the best on the validation pairs."""
        assert self.held_out is not None
        psnr = float(mean_psnr(self.errors(self.held_out)))
        if better := psnr > self.psnr:
            self.psnr, self.best = psnr, self.theta
        return better

    @torch.no_grad()
    def restore(self) -> None:
        for part, best in zip(self.parts, self.best.split([len(part) for part in self.parts]), strict=True):
            part.copy_(best)

    def adam(self, train: fs.Pairs, loss: Loss, lr: float, batch: int, share: float, full: int) -> None:
        """Make a share of ``full`` iterations, with a cosine decay, and twenty validations."""
        iterations = max(1, round(share * full))
        adam = torch.optim.Adam(self.parts, lr=lr)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, iterations)
        generator = torch.Generator().manual_seed(0)
        for iteration in range(iterations):
            adam.zero_grad()
            self.gradient(train[torch.randperm(len(train), generator=generator)[:batch]], loss, torch.inf)
            adam.step()
            decay.step()
            if (iteration + 1) % max(1, iterations // 20) == 0:
                self.validate()

    def found(self, settings: str, pairs: int, search: int = 0) -> Found:
        solver = self.family.solver(self.best)
        return Found(settings, solver, pairs, self.rollout.calls, self.backward, search)


def logarithm(mse: Tensor) -> Tensor:
    """The negative PSNR, but for constants."""
    return mse.log().mean()


def root(mse: Tensor) -> Tensor:
    """The RMSE."""
    return mse.sqrt().mean()


def bns(field: fs.Field, nfe: int, share: float, pairs: fs.Pairs) -> Iterator[Found]:
    train, held_out = pairs.split(64)
    descent = Descent(field, NonStationary(fs.classical.midpoint(nfe // 2), field.schedule), held_out)
    descent.adam(train, logarithm, 2e-3, 40, share, 15_000)
    yield descent.found(f"published, {share:.0%} of the iterations", len(pairs))


def ld3(base: str, field: fs.Field, nfe: int, share: float, pairs: fs.Pairs) -> Iterator[Found]:
    train, held_out = pairs.split(len(pairs) // 2)
    family = Timesteps(base, nfe, field.schedule, decoupled=True)
    descent = Descent(field, family, held_out, nfe - 1, nfe)
    moves, passed = descent.parts
    grid = torch.optim.RMSprop([moves], lr=0.005, momentum=0.9)
    # theta moves a time by SHARE of the gap, 1 / NFE, so that its rate for equal steps is over the square.
    times = torch.optim.SGD([passed], lr=0.1 / nfe / (SHARE / nfe) ** 2)
    noises, radius = train.x0.clone(), 0.001 * train.x0[0].numel() / nfe**2
    generator = torch.Generator().manual_seed(0)
    for epoch in range(7):
        optimizers, worse = [grid, times][: 1 if epoch < 2 else 2], 0
        descent.restore()
        for index in torch.randperm(len(train), generator=generator).split(2):
            begun = noises[index].requires_grad_()
            moves.grad = passed.grad = None
            before = descent.gradient(train[index], root, 1.0, begun)
            for optimizer in optimizers:
                optimizer.step()
            assert begun.grad is not None
            there = _in_ball(begun.detach() - 12 / nfe * begun.grad, train.x0[index], radius)
            falls = descent.errors(fs.Pairs(there, train.x1[index])) < before
            noises[index[falls]] = there[falls]
            worse = 0 if descent.validate() else worse + 1
            if worse == 5:
                worse = 0
                descent.restore()
                for optimizer in optimizers:
                    optimizer.param_groups[0]["lr"] *= 0.8
    yield descent.found(f"published, on {base}", len(pairs))


def _in_ball(x: Tensor, centre: Tensor, radius: float) -> Tensor:
    away = x - centre
    length = away.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))
    inside: Tensor = away * (radius / length.clamp(min=radius))
    return centre + inside


def gs(field: fs.Field, nfe: int, share: float, pairs: fs.Pairs) -> Iterator[Found]:
    start = Timesteps("dpmpp_3m", nfe, field.schedule, decoupled=True)
    descent = Descent(field, NonStationary(start, field.schedule), None)
    adam = torch.optim.Adam(descent.parts, lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for iteration in range(round(share * 10_000)):
        adam.zero_grad()
        index = torch.randperm(len(pairs), generator=generator)[:24]
        descent.gradient(pairs[index], torch.mean, 1.0)
        adam.step()
        descent.best.lerp_(descent.theta, 1 - min(0.999, iteration / (iteration + 10)))
    yield descent.found(f"published, {share:.0%} of the iterations", len(pairs))


def tuned(
    field: fs.Field, share: float, pairs: fs.Pairs, loss: Loss, families: Mapping[str, Family]
) -> Iterator[Found]:
    """The best of all starts and rates after few iterations, and its settings with more of them."""
    train, held_out = pairs.split(64)

    def run(start: str, rate: float, iterations: int) -> Descent:
        descent = Descent(field, families[start], held_out)
        descent.adam(train, loss, rate, 32, share, iterations)
        return descent

    tried = {(start, rate): run(start, rate, SHORT) for start in families for rate in RATES}
    start, rate = best = max(tried, key=lambda settings: tried[settings].psnr)
    search = sum(descent.rollout.calls for settings, descent in tried.items() if settings != best)
    yield tried[best].found(f"tuned: {start}, rate {rate}, {SHORT} iterations", len(pairs), search)
    search += tried[best].rollout.calls
    yield run(start, rate, LONG).found(f"tuned: {start}, rate {rate}, {LONG} iterations", len(pairs), search)


def tuned_times(field: fs.Field, nfe: int, share: float, pairs: fs.Pairs) -> Iterator[Found]:
    return tuned(field, share, pairs, root, _times(field, nfe, "dpmpp_2m/cosine", "ipndm/cosine"))


def tuned_numbers(field: fs.Field, nfe: int, share: float, pairs: fs.Pairs) -> Iterator[Found]:
    starts = {"midpoint": fs.classical.midpoint(nfe // 2)} | _times(field, nfe, "dpmpp_3m", "deis3/cosine")
    families = {name: NonStationary(start, field.schedule) for name, start in starts.items()}
    return tuned(field, share, pairs, logarithm, families)


def _times(field: fs.Field, nfe: int, *bases: str) -> dict[str, Family]:
    return {base: Timesteps(base, nfe, field.schedule, decoupled=True) for base in bases}


#: Name, number of given pairs, and function.
PROCEDURES: list[tuple[str, int, Callable[[fs.Field, int, float, fs.Pairs], Iterator[Found]]]] = [
    ("ours", 0, lambda field, nfe, *_: ours(field, nfe)),
    ("ours", 0, lambda field, nfe, *_: ours(field, nfe, 100_000)),
    ("LD3", 100, partial(ld3, "dpmpp_2m")),
    ("LD3", 100, partial(ld3, "ipndm")),
    ("LD3", 256, tuned_times),
    ("GS", 1400, gs),
    ("BNS", 584, bns),
    ("BNS or GS", 256, tuned_numbers),
]


def study(name: str, nfes: list[int], share: float, only: list[str]) -> Iterator[dict[str, Any]]:
    field = fs.models.bundled(name)
    chosen = [each for each in PROCEDURES if not only or each[0] in only]
    taken = max(1, *(count for _, count, _ in chosen))
    pairs, test = (
        fs.reference.pairs(field, fs.noise(count, field.shape or (), seed=seed), rtol=1e-6, atol=1e-6)
        for count, seed in ((taken, SEED), (TEST, TEST_SEED))
    )
    for nfe in nfes:
        for label, count, procedure in chosen:
            for found in procedure(field, nfe, share, pairs[:count]):
                mse = per_sample_mse(found.solver.sample(field, test.x0), test.x1)
                given = found.pairs if count else 0
                yield {
                    "model": name,
                    "nfe": nfe,
                    "procedure": f"{label}, {found.settings}",
                    "rmse": float(mse.sqrt().mean()),
                    "psnr": float(mean_psnr(mse)),
                    "pairs": found.pairs,
                    "calls": found.calls + round(pairs.calls * given / len(pairs)),
                    "search": found.search,
                    "backward": found.backward,
                }


def line(row: dict[str, Any]) -> str:
    thousands = " | ".join(f"{row[key] / 1000:,.0f} thousand" for key in ("calls", "search", "backward"))
    error = f"{row['rmse']:.4f} | {row['psnr']:.1f}"
    return f"| {row['model']} | {row['nfe']} | {row['procedure']} | {error} | {row['pairs']} | {thousands} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="*", default=["digits", "mixture"], help="bundled models")
    parser.add_argument("--nfe", nargs="*", type=int, default=[4, 8], help="even numbers of calls")
    parser.add_argument("--only", nargs="*", default=[], help="of ours, LD3, GS, BNS and 'BNS or GS'")
    parser.add_argument("--share", type=float, default=1.0, help="share of the rivals' iterations")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| field | calls | procedure | RMSE | PSNR | pairs | network calls | search | backward |")
    print("|" + "---|" * 9)
    for model in args.models:
        for row in study(model, args.nfe, args.share, args.only):
            print(line(row), flush=True)


if __name__ == "__main__":
    main()
