r"""Couplings on MNIST at equal budget: what each does to curvature and to few-step samples.

    python benchmarks/mnist_couplings.py --data mnist.npz --out runs/mnist-couplings   # train and measure
    python benchmarks/mnist_couplings.py --data mnist.npz --out ... --only learned-5   # one of them
    python benchmarks/mnist_couplings.py --data mnist.npz --width 16 --blocks 1 --steps 1000 --seeds 0 1 2 \
        --samples 1024 --noises 64 --only independent pooled-ot minibatch-ot            # a small study

Every flow is the same U-Net (0.98 M parameters by default), trained for the same number of steps of 64 with
the same settings, on the CPU; seeds are of the weights, the data's order and the noises. Then, from noises
that no training saw, the same for all:

* curvature: E || (x(1) - x(0)) - dx/dt ||^2 per dimension on Euler paths of 128 steps;
* truncation error: mean RMSE of Euler's n-call sample to Dormand-Prince's (tolerance 1e-5), same noise;
* distance to the data at 4 and 32 calls of midpoint's method: the Frechet distance of other samples to the
  test images, in the first 64 principal components of the training pixels (it is not FID), and precision and
  recall there;
* memorisation: the samples' mean distance to the nearest of 10,000 test images, over that to the nearest of
  10,000 training images. 1 is none.

Training resumes where it was interrupted. Results are written as they come.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor

import fewstep as fs
from fewstep.data import Dataset, load, scale
from fewstep.flows import (
    Coupling,
    FlowMatching,
    Independent,
    Learned,
    MinibatchOT,
    Mixed,
    PooledOT,
    Settings,
    Trainer,
)
from fewstep.metrics import Moments, frechet_distance
from fewstep.models import load_network
from fewstep.networks import GaussianEncoder, UNet

CALLS = (1, 2, 4, 8, 16)
SEED, BATCH = 20261121, 64


def encoder() -> GaussianEncoder:
    return GaussianEncoder(UNet(channels=1, width=16, multipliers=(1, 2), blocks=1, patch=2, out_channels=2))


COUPLINGS = {
    "independent": Independent,
    "learned-5": lambda: Learned(encoder(), beta=5),
    "mixed-5": lambda: Mixed(encoder(), beta=5),
    "minibatch-ot": MinibatchOT,
    "pooled-ot": PooledOT,
    "learned-10": lambda: Learned(encoder(), beta=10),
    "learned-20": lambda: Learned(encoder(), beta=20),
}


def train(
    name: str, data: Dataset, held_out: Dataset, out: Path, args: argparse.Namespace, seed: int
) -> float:
    """Train a flow, and return the seconds that this took, those of the matching included."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    flow = UNet(channels=1, width=args.width, multipliers=(1, 2), blocks=args.blocks, patch=2)
    # No more pairs than the training reads.
    noises = -(-args.steps * BATCH // len(data))
    coupling: Coupling = PooledOT(noises) if name == "pooled-ot" else COUPLINGS[name]()
    settings = Settings(
        steps=args.steps, batch=BATCH, lr=1e-3, warmup=200, decay="cosine", ema=(32_000,), precision="bf16",
        validate_every=args.steps, checkpoint_every=500, seed=seed,
    )  # fmt: skip
    Trainer(FlowMatching(flow, coupling), data, settings, out=out, validation=held_out, device="cpu").run()
    return time.perf_counter() - began


def nearest(x: Tensor, y: Tensor) -> float:
    """The mean distance of vectors to the nearest of others."""
    return float(torch.cat([torch.cdist(part, y).amin(1) for part in x.split(256)]).mean())


def measure(path: Path, data: Dataset, held_out: Dataset, noises: int, count: int) -> dict[str, float]:
    shape = data.shape
    field = fs.Field(load_network(path), shape=shape, name=path.parent.name)
    x0 = fs.noise(noises, shape, seed=SEED)
    exact = fs.reference.pairs(field, x0, rtol=1e-5, atol=1e-5)
    samples = {nfe: fs.classical.euler(nfe).sample(field, x0) for nfe in CALLS}
    row = {f"rmse {nfe}": fs.metrics.rmse(x, exact.x1).item() for nfe, x in samples.items()}
    row["curvature"] = float(
        fs.metrics.curvature(fs.classical.euler(128).sample(field, x0, trajectory=True)).mean()
    )
    seen, unseen = (scale(x[range(10_000)]).flatten(1) for x in (data, held_out))
    centred = (seen - seen.mean(0)).double()
    components = torch.linalg.svd(centred, full_matrices=False).Vh[:64].T
    test = unseen.double() @ components
    law = Moments.of(test)
    others = fs.noise(count, shape, seed=SEED, start=1000)
    for nfe in (4, 32):
        solver = fs.classical.midpoint(steps=nfe // 2)
        many = torch.cat([solver.sample(field, part) for part in others.split(256)]).flatten(1)
        features = many.double() @ components
        row[f"frechet {nfe}"] = frechet_distance(Moments.of(features), law)
        fidelity = fs.metrics.precision_recall(test[:count], features)
        row |= {f"precision {nfe}": fidelity.precision, f"recall {nfe}": fidelity.recall}
        row[f"memorised {nfe}"] = nearest(many, unseen) / nearest(many, seen)
    row["std"] = float(many.std())
    return row


def spread(rows: list[dict[str, float]], key: str, digits: int) -> str:
    """Mean over seeds, with the standard deviation if there are several."""
    x = torch.tensor([row[key] for row in rows], dtype=torch.float64)
    deviation = f" +- {x.std():.{digits}f}" if len(x) > 1 else ""
    return f"{x.mean():.{digits}f}{deviation}"


def table(results: dict[str, list[dict[str, float]]]) -> str:
    digits = {"curvature": 4} | {f"rmse {n}": 4 for n in CALLS} | {"frechet 4": 2, "frechet 32": 2}
    digits |= {f"{kind} {n}": 3 for n in (4, 32) for kind in ("precision", "recall", "memorised")}
    digits |= {"std": 3, "seconds": 0}
    lines = [f"{'':<17}" + "".join(f"{key:>18}" for key in digits)]
    for name, rows in results.items():
        lines.append(f"{name:<17}" + "".join(f"{spread(rows, key, n):>18}" for key, n in digits.items()))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/mnist-couplings"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--resolution", type=int, default=28, help="side of the pictures")
    parser.add_argument("--width", type=int, default=32, help="of the U-Net")
    parser.add_argument("--blocks", type=int, default=2, help="of the U-Net")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainings")
    parser.add_argument("--noises", type=int, default=256, help="for curvature and errors")
    parser.add_argument("--samples", type=int, default=2048, help="samples for the distances to the data")
    parser.add_argument("--only", choices=COUPLINGS, nargs="+", default=list(COUPLINGS))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data, held_out = (load(args.data, split=split, resolution=args.resolution) for split in ("train", "test"))

    results: dict[str, list[dict[str, float]]] = {name: [] for name in args.only}
    for seed in args.seeds:
        for name, rows in results.items():
            folder = args.out / f"{name}-{seed}"
            done = folder / "measured.json"
            if not done.exists():
                seconds = train(name, data, held_out, folder, args, seed)
                row = measure(folder / "flow.safetensors", data, held_out, args.noises, args.samples)
                done.write_text(json.dumps(row | {"seconds": seconds}, indent=1))
            rows.append(json.loads(done.read_text()))
        print(table(results), flush=True)
    how = {key: getattr(args, key) for key in ("steps", "resolution", "width", "blocks")}
    (args.out / "results.json").write_text(json.dumps(how | {"rows": results}, indent=1))


if __name__ == "__main__":
    main()
