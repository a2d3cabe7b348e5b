"""Lifted solvers against the fitted solvers that they correct, and against distillation.

    python benchmarks/lifted_solvers.py digits --nfe 3 4 --pairs 2048                   # ten minutes
    python benchmarks/lifted_solvers.py digits --nfe 2 3 4 6 --pairs 256 512 1024 2048 4096
    python benchmarks/lifted_solvers.py mnist --nfe 4 --states last --pairs 8192 --teacher 8
    python benchmarks/lifted_solvers.py digits --nfe 4 --pairs 2048 --distill           # and a student

A non-stationary solver is fitted with 256 pairs (or ``--fit-pairs``), and lifted with others of the
reference or, with ``--teacher N``, of a solver fitted with N calls. Errors are mean RMSE to the reference
(Dormand-Prince, tolerance 1e-4) from test noises that no fit has seen; an interval is twice the standard
error of the ratio over noises. A student is the network itself, trained on the same pairs for as many steps
to make them in one call.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from rough_networks import ROUGH
from torch import Tensor

import fewstep as fs
from fewstep.fitting import Reference
from fewstep.flows import warm_start
from fewstep.lifting import Training
from fewstep.metrics import per_sample_mse

TEST_SEED = 20_261_129
TIGHT = Reference(rtol=1e-4, atol=1e-4)


def field_of(name: str) -> fs.Field:
    return ROUGH[name]() if name in ROUGH else fs.models.bundled(name)


def errors(solver: fs.Solver, field: fs.Field, pairs: fs.Pairs) -> Tensor:
    """RMSE of each sample."""
    samples = [solver.sample(field, part) for part in pairs.x0.split(256)]
    return per_sample_mse(torch.cat(samples), pairs.x1).sqrt()


def student_error(field: fs.Field, pairs: fs.Pairs, test: fs.Pairs, training: Training) -> float:
    """RMSE of a student of one call, trained from the network on the same pairs for as many steps."""
    student = warm_start(field)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.iterations)
    generator = torch.Generator().manual_seed(0)
    for _ in range(training.iterations):
        index = torch.randint(len(pairs), (training.batch,), generator=generator)
        x0 = pairs.x0[index]
        loss = (x0 + student(x0, torch.zeros(len(x0))) - pairs.x1[index]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        made = torch.cat([x0 + student(x0, torch.zeros(len(x0))) for x0 in test.x0.split(256)])
    return float(per_sample_mse(made, test.x1).sqrt().mean())


def study(
    field: fs.Field,
    solver: fs.Solver,
    pairs: fs.Pairs,
    test: fs.Pairs,
    states: str,
    training: Training,
) -> dict[str, Any]:
    began = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lifted = fs.lift(solver, field, pairs=pairs, states=states, training=training)
    before, after = errors(solver, field, test), errors(lifted, field, test)
    ratio = float(after.mean() / before.mean())
    row: dict[str, Any] = {
        "nfe": solver.nfe,
        "pairs": len(pairs),
        "states": states,
        "solver": float(before.mean()),
        "lifted": float(after.mean()),
        "ratio": ratio,
        "interval": 2 * float((after - ratio * before).std() / before.mean() / len(before) ** 0.5),
        "seconds": time.process_time() - began,
        "returned": type(lifted).__name__,
    }
    if isinstance(lifted, fs.Lifted):
        row |= {key: lifted.lift[key] for key in ("weights", "share_of_a_call", "stopped")}
    return row | {"notes": [str(each.message) for each in caught]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?", default="digits", help="a bundled flow, or of rough_networks.py")
    parser.add_argument("--nfe", type=int, nargs="+", default=[3, 4])
    parser.add_argument("--pairs", type=int, nargs="+", default=[2048])
    parser.add_argument("--states", nargs="+", default=["every"], choices=("every", "last"))
    parser.add_argument("--fit-pairs", type=int, default=256)
    parser.add_argument("--teacher", type=int, help="calls of the fitted solver that makes the targets")
    parser.add_argument("--test", type=int, default=1024, help="test noises")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--distill", action="store_true", help="train a student on the same pairs")
    parser.add_argument("--work", type=Path, default=Path("runs/lifted"), help="folder of pairs and fits")
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    field = field_of(args.model)
    assert field.shape is not None
    options: dict[str, Any] = {**vars(TIGHT), "cache": args.work / "pairs", "max_nfe": 2000}
    test = fs.reference.pairs(field, fs.noise(args.test, field.shape, seed=TEST_SEED), **options)

    def fitted(nfe: int) -> fs.Solver:
        path = args.work / f"{args.model}-{nfe}-{args.fit_pairs}.json"
        if not path.exists():
            fs.fit(field, nfe, pairs=args.fit_pairs, reference=TIGHT, batch=256).solver.save(path)
        return fs.Solver.load(path)

    x0 = fs.noise(max(args.pairs), field.shape, seed=1)
    if args.teacher:
        teacher = fitted(args.teacher)
        print(f"teacher: {teacher.nfe} calls, RMSE {float(errors(teacher, field, test).mean()):.4f}")
        x1 = torch.cat([teacher.sample(field, part) for part in x0.split(256)])
        pairs = fs.Pairs(x0, x1, nfe=teacher.nfe, calls=teacher.nfe * len(x0))
    else:
        pairs = fs.reference.pairs(field, x0, **options)
    print(f"{args.model}: {pairs.calls / len(pairs):.0f} calls a pair, {len(test)} test noises", flush=True)
    print(
        "calls   pairs  states   solver   lifted   ratio           weights  of a call  CPU seconds",
        flush=True,
    )
    training, rows = Training(iterations=args.iterations, batch=args.batch), []
    for nfe in args.nfe:
        for count in args.pairs:
            for states in args.states:
                row = study(field, fitted(nfe), pairs[:count], test, states, training)
                rows.append({"model": args.model, "teacher": args.teacher, **row})
                print(
                    f"{nfe:>5} {count:>7}  {states:<6} {row['solver']:8.4f} {row['lifted']:8.4f}"
                    f"  {row['ratio']:6.3f} +- {row['interval']:.3f} {row.get('weights', 0):>9,}"
                    f"  {row.get('share_of_a_call', 0):9.3f} {row['seconds']:12.0f}",
                    flush=True,
                )
                if args.out:
                    args.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if args.distill:
        for count in args.pairs:
            error = student_error(field, pairs[:count], test, training)
            print(f"a student of 1 call, {count} pairs: RMSE {error:.4f}", flush=True)


if __name__ == "__main__":
    main()
