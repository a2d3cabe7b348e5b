"""Memory and time of one gradient: the bound against the endpoint loss, as the number of steps grows.

    python benchmarks/loss_costs.py
    python benchmarks/loss_costs.py --steps 2 4 --batch 4

The network is the bundled U-Net for MNIST (1 million parameters), the solvers are scale-time RK2 with n steps
and 2n calls. The losses:

* endpoint: the RMSE of the sample, back through all 2n calls;
* endpoint, checkpointed: the same, as fits do it: each call's activations are forgotten, and made again;
* bound: the n local errors side by side, as fits do it; no step waits for another, but all are held at once;
* bound, step by step: the same sum, with a gradient after each step.

Memory is what torch's allocator gives out during the gradient, at its most and less what was there before, as
the profiler records it (profile_memory): activations kept for the way back, those made again, what layers
need while they run. On a CPU that is sharper than resident memory, from which freed blocks hardly ever go
back, and the same tensors would be allocated on any device. Seconds are those of the processor, the least of
several gradients on one thread.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import fewstep as fs
from fewstep.families import ScaleTime
from fewstep.fitting import ENDPOINT_LOSSES, bound_weights, local_errors
from fewstep.fitting._dense import DensePath
from fewstep.fitting._rollout import Rollout
from fewstep.metrics import per_sample_mse


def most_bytes(work: Callable[[], Tensor]) -> int:
    """The most bytes of torch's CPU allocator that were in use at once, of those allocated by ``work``."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return max(itertools.accumulate(sizes))


def gradients(n: int, batch: int) -> dict[str, Callable[[], Tensor]]:
    """For each loss a function of nothing that returns its gradient in theta."""
    field, family = fs.models.bundled("mnist"), ScaleTime("midpoint", n)
    x0 = fs.noise(batch, field.shape, seed=77)
    # A straight stand-in for the reference path costs no calls, and a gradient as much as on the path.
    times = torch.linspace(0, 1, 65, dtype=torch.float64)
    states = torch.stack([(1 - t) * x0 for t in times.tolist()])
    path, pairs = DensePath(times, states, (-x0).expand_as(states)), fs.Pairs(x0, torch.zeros_like(x0))
    generator = torch.Generator().manual_seed(77)
    start = 0.1 * torch.randn(family.size, dtype=torch.float64, generator=generator)
    rollout = Rollout(field, 4096)

    def endpoint(checkpointed: bool) -> Tensor:
        theta = start.clone().requires_grad_()
        end = rollout.endpoint(family.table(theta).unroll(), pairs, checkpointed=checkpointed)
        loss = ENDPOINT_LOSSES["rmse"](per_sample_mse(end, pairs.x1))
        return torch.autograd.grad(loss, theta)[0]

    def errors(theta: Tensor) -> Tensor:
        return local_errors(rollout.velocity(pairs), family.table(theta), family.points, path)

    def bound() -> Tensor:
        theta = start.clone().requires_grad_()
        return torch.autograd.grad((bound_weights(family, theta) * errors(theta)).sum(), theta)[0]

    def step_by_step() -> Tensor:
        """The sum rule over the steps: each is a one-step solver on its own stretch of the path."""
        theta = start.clone().requires_grad_()
        total = torch.zeros_like(start)
        for i in range(n):
            table = family.table(theta)
            rows = slice(2 * i, 2 * i + 2)
            step = type(table)(table.times[rows], table.C[rows, rows], table.D[rows, rows])
            stop = table.times[2 * i + 2] if i < n - 1 else path.end
            until = Until(path, stop)
            (error,) = local_errors(rollout.velocity(pairs), step, (0, 2), until)
            total += torch.autograd.grad(bound_weights(family, theta)[i] * error, theta)[0]
        return total

    return {
        "endpoint": lambda: endpoint(False),
        "endpoint, checkpointed": lambda: endpoint(True),
        "bound": bound,
        "bound, step by step": step_by_step,
    }


class Until:
    """A path of which a step reads its start and ``end`` only."""

    def __init__(self, path: DensePath, end: Tensor) -> None:
        self.path, self.end = path, end

    def at(self, t: Tensor) -> Tensor:
        return self.path.at(t)


def study(n: int, batch: int, repeats: int) -> list[dict[str, Any]]:
    rows = []
    for name, gradient in gradients(n, batch).items():
        value, seconds = gradient(), []
        for _ in range(repeats):
            started = time.process_time()
            gradient()
            seconds.append(time.process_time() - started)
        cost = {"bytes": most_bytes(gradient), "seconds": min(seconds)}
        rows.append({"steps": n, "loss": name, **cost, "gradient": value.tolist()})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[2, 4, 8, 16, 32])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file, too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows: list[dict[str, Any]] = []
    for n in args.steps:
        some = study(n, args.batch, args.repeats)
        if not rows:
            head = ["steps", "calls", *(row["loss"] for row in some)]
            print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
        marks = [f"{row['bytes'] / 2**20:.1f} MiB, {row['seconds']:.2f} s" for row in some]
        print("| " + " | ".join([str(n), str(2 * n), *marks]) + " |", flush=True)
        for one, other in ((0, 1), (2, 3)):
            pair = [torch.tensor(some[k]["gradient"]) for k in (one, other)]
            torch.testing.assert_close(*pair, rtol=1e-3, atol=1e-4)
        rows += some
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
