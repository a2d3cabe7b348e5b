"""Memory and time of one gradient: the bound against the endpoint loss, as the number of steps grows.

    python benchmarks/loss_costs.py
    python benchmarks/loss_costs.py --steps 2 4 --batch 4

The network is the bundled U-Net for MNIST (1 million parameters), the solvers are scale-time RK2 with n steps
and 2n calls. The losses:

* endpoint: the RMSE of the sample, back through all 2n calls;
* endpoint, checkpointed: the same, as fits do it: each call's activations are forgotten, and made again;
* bound: the n local errors side by side, as fits do it; no step waits for another, but all are held at once;
* bound, step by step: the same sum, with a gradient after each step.

Memory is the bytes of the distinct tensors that autograd keeps for the way back (by
torch.autograd.graph.saved_tensors_hooks), at their most during the gradient: what a larger network or batch
multiplies, on any device. It has neither the network's own parameters nor what a layer needs only while it
runs, and so no caches of the allocator, which resident memory on a CPU would mostly show. Seconds are the
least of several gradients on one thread.
"""

from __future__ import annotations

import argparse
import json
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fewstep as fs
from fewstep.families import ScaleTime
from fewstep.fitting import ENDPOINT_LOSSES, bound_weights, local_errors
from fewstep.fitting._dense import DensePath
from fewstep.fitting._rollout import Rollout
from fewstep.metrics import per_sample_mse


class Saved:
    """Bytes that autograd keeps, now and at their most; storages that are kept twice count once."""

    def __init__(self, known: list[Tensor]) -> None:
        self.now = self.most = 0
        self.counts: dict[int, int] = {}
        self.parameters = {tensor.untyped_storage().data_ptr() for tensor in known}

    def pack(self, tensor: Tensor) -> Packed:
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        packed = Packed(tensor)
        if key not in self.parameters:
            self.counts[key] = self.counts.get(key, 0) + 1
            if self.counts[key] == 1:
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
            weakref.finalize(packed, self.drop, key, storage.nbytes())
        return packed

    def drop(self, key: int, size: int) -> None:
        self.counts[key] -= 1
        if not self.counts[key]:
            self.now -= size


class Packed:
    """A saved tensor; it lives as long as autograd keeps it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def gradients(n: int, batch: int) -> tuple[dict[str, Callable[[], Tensor]], list[Tensor]]:
    """A function of nothing for each loss, that returns its gradient in theta; and the parameters."""
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

    made = {
        "endpoint": lambda: endpoint(False),
        "endpoint, checkpointed": lambda: endpoint(True),
        "bound": bound,
        "bound, step by step": step_by_step,
    }
    return made, list(field.model.parameters())


class Until:
    """A path of which a step reads its start and ``end`` only."""

    def __init__(self, path: DensePath, end: Tensor) -> None:
        self.path, self.end = path, end

    def at(self, t: Tensor) -> Tensor:
        return self.path.at(t)


def study(n: int, batch: int, repeats: int) -> list[dict[str, Any]]:
    made, parameters = gradients(n, batch)
    rows = []
    for name, gradient in made.items():
        saved = Saved(parameters)
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda packed: packed.tensor):
            value = gradient()
        seconds = []
        for _ in range(repeats):
            started = time.perf_counter()
            gradient()
            seconds.append(time.perf_counter() - started)
        rows.append({"steps": n, "loss": name, "bytes": saved.most, "seconds": min(seconds)})
        rows[-1]["gradient"] = value.tolist()
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
