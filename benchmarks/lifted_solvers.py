"""Lifted solvers against the fitted solvers that they correct, and against distillation.

    python benchmarks/lifted_solvers.py digits --nfe 3 4 --pairs 2048                   # three minutes
    python benchmarks/lifted_solvers.py digits --nfe 2 3 4 6 --pairs 256 512 1024 2048 4096
    python benchmarks/lifted_solvers.py mnist --nfe 4 --pairs 8192 --teacher 8 --width 64 --lr 3e-3
    python benchmarks/lifted_solvers.py digits --nfe 4 --pairs 2048 --distill           # and a student
    python benchmarks/lifted_solvers.py guided --nfe 4 --guidance 1 3 4                 # transfer from 2
    python benchmarks/lifted_solvers.py mnist --nfe 4 --size 32 --states last           # from 28 x 28

``guided`` is the exact mixture with labels of learned_solvers.py, at guidance scale 2.

A non-stationary solver is fitted with 256 pairs (or ``--fit-pairs``), and lifted with others of the
reference or, with ``--teacher N``, of a solver fitted with N calls. Errors are mean RMSE to the reference
(Dormand-Prince, tolerance 1e-4) from test noises that no fit has seen; an interval is twice the standard
error of the ratio over noises, and the typical ratio is the geometric mean over noises. Frechet distances
are to the reference's samples from the same noises, in the first 64 principal components of these. A
student is the network itself, trained on the same pairs for as many steps to make them in one call.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from one_fit_for_many import guided
from rough_networks import ROUGH
from torch import Tensor

import fewstep as fs
from fewstep.fitting import Reference
from fewstep.flows import warm_start
from fewstep.lifting import Training
from fewstep.metrics import Moments, frechet_distance, per_sample_mse

TEST_SEED = 20_261_129
TIGHT = Reference(rtol=1e-4, atol=1e-4)


def field_of(name: str, scale: float = 2.0) -> fs.Field:
    if name == "guided":
        return guided().with_guidance(scale)
    return ROUGH[name]() if name in ROUGH else fs.models.bundled(name)


def conditions(name: str, count: int) -> dict[str, Tensor]:
    return {"label": torch.arange(count) % 4} if name == "guided" else {}


def sampled(solver: fs.Solver, field: fs.Field, pairs: fs.Pairs) -> Tensor:
    bound = pairs.bind(field)
    parts = [slice(k, k + 256) for k in range(0, len(pairs), 256)]
    return torch.cat([solver.sample(bound.rows(part), pairs.x0[part]) for part in parts])


def errors(solver: fs.Solver, field: fs.Field, pairs: fs.Pairs) -> Tensor:
    """RMSE of each sample."""
    return per_sample_mse(sampled(solver, field, pairs), pairs.x1).sqrt()


def compared(solver: fs.Solver, lifted: fs.Solver, field: fs.Field, test: fs.Pairs) -> dict[str, float]:
    """Mean errors, their ratio with its interval, and Frechet distances to the reference's samples."""
    made = [sampled(each, field, test) for each in (solver, lifted)]
    before, after = (per_sample_mse(x, test.x1).sqrt() for x in made)
    ratio = float(after.mean() / before.mean())
    exact = test.x1.flatten(1).double()
    components = torch.linalg.svd(exact - exact.mean(0), full_matrices=False).Vh[:64].T
    law, *laws = (Moments.of(x.flatten(1).double() @ components) for x in (exact, *made))
    return {
        "solver": float(before.mean()),
        "lifted": float(after.mean()),
        "ratio": ratio,
        "interval": 2 * float((after - ratio * before).std() / before.mean() / len(before) ** 0.5),
        "typical": float((after / before).log().mean().exp()),
        "frechet_solver": frechet_distance(laws[0], law),
        "frechet_lifted": frechet_distance(laws[1], law),
    }


def student_error(field: fs.Field, pairs: fs.Pairs, test: fs.Pairs, training: Training) -> float:
    """RMSE of a student of one call, trained from the network on the same pairs for as many steps."""
    student, steps = warm_start(field), training.steps(len(pairs))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        index = torch.randint(len(pairs), (training.batch,), generator=generator)
        x0 = pairs.x0[index]
        loss = (x0 + student(x0, torch.zeros(len(x0))) - pairs.x1[index]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        made = torch.cat([x0 + student(x0, torch.zeros(len(x0))) for x0 in test.x0.split(256)])
    return float(fs.metrics.rmse(made, test.x1))


def study(
    field: fs.Field,
    solver: fs.Solver,
    pairs: fs.Pairs,
    tests: dict[str, tuple[fs.Field, fs.Pairs]],
    states: str,
    training: Training,
    out: Path,
) -> list[dict[str, Any]]:
    """Lift a solver, and save it; a row for each of the test fields."""
    began = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lifted = fs.lift(solver, field, pairs=pairs, states=states, training=training)
    facts: dict[str, Any] = {
        "nfe": solver.nfe,
        "pairs": len(pairs),
        "states": states,
        "seconds": time.process_time() - began,
        "returned": type(lifted).__name__,
        "notes": [str(each.message) for each in caught],
    }
    if isinstance(lifted, fs.Lifted):
        lifted.save(out)
        facts |= {key: lifted.lift[key] for key in ("weights", "share_of_a_call", "steps", "stopped")}
    return [{**facts, "at": at, **compared(solver, lifted, *test)} for at, test in tests.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?", default="digits", help="a bundled flow, or of rough_networks.py")
    parser.add_argument("--nfe", type=int, nargs="+", default=[3, 4])
    parser.add_argument("--pairs", type=int, nargs="+", default=[2048])
    parser.add_argument("--states", nargs="+", default=["every"], choices=("every", "last"))
    parser.add_argument("--fit-pairs", type=int, default=256)
    parser.add_argument("--teacher", type=int, help="calls of the fitted solver that makes the targets")
    parser.add_argument("--test", type=int, default=1024, help="test noises")
    parser.add_argument("--iterations", type=int, help="most steps, by default 150 passes through the pairs")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=Training.lr, help="highest learning rate")
    parser.add_argument("--width", type=int, default=Training.width, help="channels of the corrections")
    parser.add_argument("--patch", type=int, help="entries along each axis that corrections take together")
    parser.add_argument("--size", type=int, help="measure at this resolution, too")
    parser.add_argument("--guidance", type=float, nargs="+", default=[], help="and at these scales (guided)")
    parser.add_argument("--distill", action="store_true", help="train a student on the same pairs")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/lifted"), help="folder of pairs, fits and lifts"
    )
    parser.add_argument("--out", type=Path, help="write the rows to this JSON file")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", "solver .* was fitted for guidance")
    field = field_of(args.model)
    shape = field.shape
    assert shape is not None
    options: dict[str, Any] = {**vars(TIGHT), "cache": args.work / "pairs", "max_nfe": 2000}
    places = {"": field} | {f"w = {w:g}": field_of(args.model, w) for w in args.guidance}
    if args.size:
        name = f"{args.size} x {args.size}"
        size = (*shape[:-2], args.size, args.size)
        places[name] = fs.Field(lambda x, t: field(x, t), field.schedule, shape=size, name=name)
    tests = {}
    for at, place in places.items():
        x0 = fs.noise(args.test, place.shape or (), seed=TEST_SEED)
        given = conditions(args.model, args.test)
        tests[at] = place, fs.reference.pairs(place, x0, **options, per_sample=given)
    test = tests[""][1]

    def fitted(nfe: int) -> fs.Solver:
        path = args.work / f"{args.model}-{nfe}-{args.fit_pairs}.json"
        if not path.exists():
            given = conditions(args.model, args.fit_pairs)
            fit = fs.fit(field, nfe, pairs=args.fit_pairs, per_sample=given, reference=TIGHT, batch=256)
            fit.solver.save(path)
        return fs.Solver.load(path)

    x0, given = fs.noise(max(args.pairs), shape, seed=1), conditions(args.model, max(args.pairs))
    if args.teacher:
        teacher = fitted(args.teacher)
        print(f"teacher: {teacher.nfe} calls, RMSE {float(errors(teacher, field, test).mean()):.4f}")
        pairs = fs.Pairs(x0, x0, per_sample=given, nfe=teacher.nfe, calls=teacher.nfe * len(x0))
        pairs = replace(pairs, x1=sampled(teacher, field, pairs))
    else:
        pairs = fs.reference.pairs(field, x0, **options, per_sample=given)
    print(f"{args.model}: {pairs.calls / len(pairs):.0f} calls a pair, {len(test)} test noises", flush=True)
    print(
        "calls   pairs  states   solver   lifted   ratio           typical  Frechet            weights"
        "  of a call  CPU seconds  at",
        flush=True,
    )
    own = {name: getattr(args, name) for name in ("iterations", "batch", "lr", "width", "patch")}
    training, rows = Training(**own), []
    for nfe, count, states in product(args.nfe, args.pairs, args.states):
        out = args.work / f"{args.model}-{nfe}-{count}-{states}"
        for row in study(field, fitted(nfe), pairs[:count], tests, states, training, out):
            rows.append({"model": args.model, "teacher": args.teacher, **row})
            print(
                f"{nfe:>5} {count:>7}  {states:<6} {row['solver']:8.4f} {row['lifted']:8.4f}"
                f"  {row['ratio']:6.3f} +- {row['interval']:.3f}   {row['typical']:6.3f}"
                f"  {row['frechet_solver']:7.3f} {row['frechet_lifted']:7.3f} {row.get('weights', 0):>9,}"
                f"  {row.get('share_of_a_call', 0):9.3f} {row['seconds']:12.0f}  {row['at']}",
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
