"""Train the bundled MNIST flows: one-million-parameter U-Nets, one to two hours each on one CPU core.

    python recipes/mnist.py --data mnist.npz --coupling independent --out runs/mnist
    python recipes/mnist.py --data mnist.npz --coupling learned --out runs/mnist-straight

Interrupted runs resume from the checkpoints in the folder that they write to. (`mnist.safetensors` was
trained with the same settings, but by an earlier loop that drew other random numbers.)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from fewstep.data import load
from fewstep.flows import Coupling, FlowMatching, Independent, Learned, Settings, Trainer
from fewstep.networks import GaussianEncoder, UNet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--coupling", choices=["independent", "learned"], default="independent")
    parser.add_argument("--steps", type=int, default=16_000)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    flow = UNet(channels=1, width=32, multipliers=(1, 2), blocks=2, patch=2)
    coupling: Coupling = Independent()
    if args.coupling == "learned":
        encoder = UNet(channels=1, width=16, multipliers=(1, 2), blocks=1, patch=2, out_channels=2)
        coupling = Learned(GaussianEncoder(encoder), beta=5)
    Trainer(
        FlowMatching(flow, coupling),
        load(args.data),
        Settings(
            steps=args.steps, batch=64, lr=1e-3, warmup=200, decay="cosine", ema=(32_000,), precision="bf16",
            validate_every=2000,
        ),
        out=args.out,
        validation=load(args.data, split="test"),
        device="cpu",
    ).run()  # fmt: skip


if __name__ == "__main__":
    main()
