"""Findings of `fewstep check` on correct fields, and on fields with every mistake in declaring them.

    python benchmarks/checks.py                      # exact fields and the bundled digits
    python benchmarks/checks.py --nets runs/checks   # and twelve networks of its own, trained in four minutes
    python benchmarks/checks.py --flows runs/learned/flow.safetensors runs/reflowed/round-1/flow.safetensors

The thresholds were chosen on seed 0; these are other seeds. A mistake counts as *found* if the check has a
finding, and as *identified* if the field that it suggests is the right one (has its velocities). The
networks are perceptrons on the digits, one for each prediction under each of three schedules, trained for
1,500 steps only: a check must not mistake a poor network for a mis-wired one.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

import fewstep as fs
from fewstep.models import GaussianMixture, load_field, random_mixture
from fewstep.networks import MLP, save_network
from fewstep.schedules import DDPM, VE, VP, CondOT, Cosine, Schedule

SEEDS = (101,)
PREDICTIONS = ("velocity", "noise", "data", "v")
SCHEDULES = (CondOT(), VP(), Cosine(), VE(), DDPM("scaled_linear"))

Case = tuple[str, fs.Field, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nets", type=Path, help="folder of trained networks; made where they lack")
    parser.add_argument("--flows", type=Path, nargs="*", default=[], help="other flows of the digits")
    parser.add_argument("--data", choices=["with", "without"], help="only with data, or without")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument(
        "--only", nargs="+", default=[""], help="only fields whose name begins like one of these"
    )
    parser.add_argument("--missed", action="store_true", help="name what was missed or mistaken")
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file, too")
    args = parser.parse_args()
    torch.set_num_threads(1)

    cases = [*exact(), *reinterpreted()]
    if args.nets:
        cases += [*trained(args.nets)]
    cases += [(f"flow {path}", load_field(path), digits()) for path in args.flows]
    cases = [case for case in cases if case[0].startswith(tuple(args.only))]
    modes = {"with": [True], "without": [False], None: [True, False]}[args.data]
    rows = [row for case in cases for row in study(case, args.seeds, modes)]
    report(rows, args.missed)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


def study(case: Case, seeds: list[int], modes: list[bool]) -> Iterator[dict]:
    """Check a correct field and all its mistaken declarations, with data and without."""
    name, field, data = case
    for fault, mistaken, right in [("none", field, field), *faults(field)]:
        for seed in seeds:
            for with_data in modes:
                check = fs.check(mistaken, data if with_data else None, seed=seed)
                yield {
                    "field": name,
                    "fault": fault,
                    "detail": f"{mistaken!r} clock {mistaken.clock}",
                    "seed": seed,
                    "data": with_data,
                    "found": not check.ok,
                    "identified": check.corrected is not None and same(check.corrected, right, data),
                    "loss": check.loss,
                    "calibration": check.calibration,
                    "findings": {finding.name: finding.measured for finding in check.findings},
                    "calls": check.calls,
                }


def faults(field: fs.Field) -> Iterator[tuple[str, fs.Field, fs.Field]]:
    """Mistakes in declaring a field whose network takes ``t`` in [0, 1]: name, mistaken, right."""

    def declare(model, prediction=field.prediction, schedule=field.schedule, clock=(0, 1)) -> fs.Field:
        return fs.Field(model, schedule, prediction, shape=field.shape, clock=clock, name="network")

    def clocked(clock):
        """The network as if it had been trained with another clock."""
        (start, end), model = clock, field.model
        return lambda x, t: model(x, ((t - start) / (end - start)).clamp(0, 1))

    for prediction in PREDICTIONS:
        if prediction != field.prediction:
            yield "prediction", declare(field.model, prediction), field
    yield "sign", declare(lambda x, t: -field.model(x, t)), field
    thousand = clocked((1000, 0))
    right = declare(thousand, clock=(1000, 0))
    yield "reversed time", declare(field.model, clock=(1, 0)), field
    yield "reversed time", declare(thousand, clock=(0, 1000)), right
    yield "time too long", declare(clamped(field), clock=(0, 1000)), field
    yield "time too long", declare(clamped(field), clock=(1000, 0)), field
    yield "time too short", declare(thousand, clock=(0, 1)), right
    yield "time too short", declare(thousand, clock=(1, 0)), right
    if field.prediction == "velocity":
        backward = clocked((1, 0))
        yield "data to noise", declare(lambda x, t: -backward(x, t)), field
    for schedule in SCHEDULES:
        if schedule != field.schedule:
            yield "schedule", declare(field.model, schedule=schedule), field


def clamped(field: fs.Field):
    """A network that stands times which it was not trained for; exact ones do not exist there."""
    exact_network = isinstance(field.model, GaussianMixture)
    return (lambda x, t: field.model(x, t.clamp(0, 1))) if exact_network else field.model


def same(field: fs.Field, other: fs.Field, data: Tensor) -> bool:
    """Return True if two fields denoise alike."""
    x = fs.noise(16, data.shape[1:], seed=7)
    for level in (-1.0, 0.0, 1.0):
        t = float(other.schedule.inverse_log_snr(level))
        alpha, sigma = (float(c) for c in other.schedule(t)[:2])
        state = alpha * data[:16].float() + sigma * x
        if field.schedule != other.schedule:
            return False
        with torch.no_grad():
            gap = field.predict_as("data", state, t) - other.predict_as("data", state, t)
        if not gap.square().mean().sqrt() < 0.02:
            return False
    return True


def digits() -> Tensor:
    return fs.data.digits()[0]


def exact() -> Iterator[Case]:
    """Mixtures and kernel density estimates: no error but that of sampling."""
    for i, schedule in enumerate(SCHEDULES):
        for prediction in (PREDICTIONS[i % 4], PREDICTIONS[(i + 1) % 4]):
            network = random_mixture(24, 7, schedule=schedule, prediction=prediction)
            data = network.sample_data(2048, torch.Generator().manual_seed(5)).float()
            yield f"mixture {schedule.name} {prediction}", network.field(), data
    for schedule, prediction in ((CondOT(), "velocity"), (VP(), "noise")):
        network = random_mixture(2, 8, std=0.05, seed=1, schedule=schedule, prediction=prediction)
        data = network.sample_data(2048, torch.Generator().manual_seed(5)).float()
        yield f"plane {schedule.name} {prediction}", network.field(), data
    network = GaussianMixture(digits(), 0.1)
    yield "digits-kde", network.field(), network.sample_data(512, torch.Generator().manual_seed(5)).float()


def reinterpreted() -> Iterator[Case]:
    """The bundled flow of the digits, as a network of other predictions under other schedules."""
    flow = fs.models.bundled("digits")
    for i, schedule in enumerate(SCHEDULES):
        moved = flow.reschedule(schedule)
        for prediction in (PREDICTIONS[i % 4], PREDICTIONS[(i + 1) % 4]):

            def network(x: Tensor, t: Tensor, moved=moved, prediction=prediction) -> Tensor:
                return moved.predict_as(prediction, x, t)

            field = fs.Field(network, schedule, prediction, shape=flow.shape, clock=(0, 1), name="digits")
            yield f"digits {schedule.name} {prediction}", field, digits()


def trained(folder: Path) -> Iterator[Case]:
    """Networks trained here, each in its own prediction and schedule."""
    for schedule in (CondOT(), VP(), Cosine()):
        for prediction in PREDICTIONS:
            path = folder / f"{schedule.name}-{prediction}.safetensors"
            if not path.exists():
                train(path, schedule, prediction)
            yield f"trained {schedule.name} {prediction}", load_field(path), digits()


def train(path: Path, schedule: Schedule, prediction: str, steps: int = 1500) -> None:
    torch.manual_seed(0)
    data = digits()
    network, average = (MLP((1, 8, 8), width=256, blocks=3) for _ in range(2))
    adam = torch.optim.Adam(network.parameters(), lr=2e-3)
    average.load_state_dict(network.state_dict())
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = 1e-3 * min(1, (step + 1) / 100) * (1 + math.cos(math.pi * step / steps))
        x1 = data[torch.randint(len(data), (256,))]
        x0, t = torch.randn_like(x1), 1e-3 + (1 - 2e-3) * torch.rand(256)
        alpha, sigma, d_alpha, d_sigma = (c.reshape(-1, 1, 1, 1) for c in schedule(t))
        target = {
            "velocity": d_alpha * x1 + d_sigma * x0,
            "noise": x0,
            "data": x1,
            "v": alpha * x0 - sigma * x1,
        }[prediction]
        loss = (network(alpha * x1 + sigma * x0, t) - target).square().mean()
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adam.step()
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(weight, max(0.01, 9 / (step + 10)))
    facts = {"shape": [1, 8, 8], "schedule": schedule.to_dict(), "prediction": prediction}
    save_network(path, average, **facts)
    print(f"trained {path}", flush=True)


def report(rows: list[dict], missed: bool) -> None:
    for with_data in (True, False):
        table = collections.defaultdict(lambda: [0, 0, 0])
        chosen = [row for row in rows if row["data"] == with_data]
        if not chosen:
            continue
        for row in chosen:
            kind = row["field"].split()[0]
            for key in ((row["fault"], kind), (row["fault"], "all")):
                cell = table[key]
                cell[0] += 1
                cell[1] += row["found"]
                cell[2] += row["identified"]
        kinds = [*dict.fromkeys(row["field"].split()[0] for row in chosen), "all"]
        print(f"\n{'with' if with_data else 'without'} data: found/identified/of")
        print(f"{'':<16}" + "".join(f"{kind:>18}" for kind in kinds))
        for fault in dict.fromkeys(row["fault"] for row in chosen):
            cells = (table[fault, kind] for kind in kinds)
            print(f"{fault:<16}" + "".join(f"{f'{f}/{i}/{n}' if n else '-':>18}" for n, f, i in cells))
        calls = [[row["calls"] for row in chosen if row["found"] == found] for found in (False, True)]
        print("most calls: " + ", ".join(str(max(c, default=0)) for c in calls), "(nothing found, something)")
        for row in chosen if missed else ():
            if row["found"] != (row["fault"] != "none"):
                print(
                    f"  {row['field']} seed {row['seed']}: {row['fault']} {row['detail']} "
                    f"loss {row['loss']:.3f} calibration {row['calibration']:.3f} {row['findings']}"
                )


if __name__ == "__main__":
    main()
