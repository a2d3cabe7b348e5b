"""Six couplings on MNIST at equal budget: what each does to curvature and to few-step samples.

    python benchmarks/mnist_couplings.py --data mnist.npz --out runs/mnist-couplings   # train and measure
    python benchmarks/mnist_couplings.py --data mnist.npz --out ... --only learned-5   # train one of them

Every flow is the same U-Net (0.98 M parameters), trained for the same number of steps on the same batches
with the same settings, on the CPU. Then, from the same 256 noises that no training saw:

* curvature: E || (x(1) - x(0)) - dx/dt ||^2 per dimension on Euler paths of 128 steps;
* truncation error: mean RMSE of Euler's n-call sample to Dormand-Prince's (tolerance 1e-5), same noise;
* distance to the data: Frechet distance of 2,048 samples (midpoint, 32 calls) to the test images, in the
  first 64 principal components of the training pixels. It is not FID.

Training resumes where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

import fewstep as fs
from fewstep.data import Dataset, load, scale
from fewstep.flows import Coupling, FlowMatching, Independent, Learned, MinibatchOT, Mixed, Settings, Trainer
from fewstep.models import load_network
from fewstep.networks import GaussianEncoder, UNet

CALLS = (1, 2, 4, 8, 16)
SEED = 20261121


def encoder() -> GaussianEncoder:
    return GaussianEncoder(UNet(channels=1, width=16, multipliers=(1, 2), blocks=1, patch=2, out_channels=2))


COUPLINGS = {
    "independent": Independent,
    "learned-5": lambda: Learned(encoder(), beta=5),
    "mixed-5": lambda: Mixed(encoder(), beta=5),
    "minibatch-ot": MinibatchOT,
    "learned-10": lambda: Learned(encoder(), beta=10),
    "learned-20": lambda: Learned(encoder(), beta=20),
}


def train(name: str, data: Dataset, held_out: Dataset, out: Path, steps: int) -> None:
    torch.manual_seed(0)
    flow = UNet(channels=1, width=32, multipliers=(1, 2), blocks=2, patch=2)
    coupling: Coupling = COUPLINGS[name]()
    settings = Settings(
        steps=steps, batch=64, lr=1e-3, warmup=200, decay="cosine", ema=(32_000,), precision="bf16",
        validate_every=steps, checkpoint_every=500,
    )  # fmt: skip
    Trainer(
        FlowMatching(flow, coupling), data, settings, out=out / name, validation=held_out, device="cpu"
    ).run()


def frechet(a: Tensor, b: Tensor) -> float:
    """Frechet distance of the Gaussians with the moments of two sets of features, ``(B, d)``."""
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross)


def measure(path: Path, data: Dataset, held_out: Dataset) -> dict[str, float]:
    field = fs.Field(load_network(path), shape=(1, 28, 28), name=path.parent.name)
    x0 = fs.noise(256, (1, 28, 28), seed=SEED)
    exact = fs.reference.pairs(field, x0, rtol=1e-5, atol=1e-5)
    samples = {nfe: fs.classical.euler(nfe).sample(field, x0) for nfe in CALLS}
    row = {f"rmse {nfe}": fs.metrics.rmse(x, exact.x1).item() for nfe, x in samples.items()}
    row["curvature"] = float(
        fs.metrics.curvature(fs.classical.euler(128).sample(field, x0, trajectory=True)).mean()
    )
    pixels = scale(data[range(10_000)]).flatten(1).double()
    components = torch.linalg.svd(pixels - pixels.mean(0), full_matrices=False).Vh[:64].T
    solver = fs.classical.midpoint(steps=16)
    noises = fs.noise(2048, (1, 28, 28), seed=SEED, start=1000)
    many = torch.cat([solver.sample(field, part) for part in noises.split(256)])
    features = [x.flatten(1).double() @ components for x in (many, scale(held_out[range(len(held_out))]))]
    row["frechet"] = frechet(*features)
    row["std"] = float(many.std())
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/mnist-couplings"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--only", choices=COUPLINGS, help="train one coupling, and measure nothing")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data, held_out = load(args.data), load(args.data, split="test")

    for name in [args.only] if args.only else COUPLINGS:
        train(name, data, held_out, args.out, args.steps)
    if args.only:
        return
    rows = {name: measure(args.out / name / "flow.safetensors", data, held_out) for name in COUPLINGS}
    base = rows["independent"]
    heads = "".join(f"  n={n:<3} (x) " for n in CALLS)
    print(f"{'coupling':<14} curvature  (x)   {heads} Frechet  std")
    for name, row in rows.items():
        errors = "".join(f" {row[f'rmse {n}']:.4f} {row[f'rmse {n}'] / base[f'rmse {n}']:.2f}" for n in CALLS)
        curvature = f"{row['curvature']:.4f} {row['curvature'] / base['curvature']:>7.2f}"
        print(f"{name:<14} {curvature}  {errors}  {row['frechet']:7.3f}  {row['std']:.3f}")
    results = {"steps": args.steps, "seed": SEED, "rows": rows}
    (args.out / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
