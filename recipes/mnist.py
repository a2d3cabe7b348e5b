"""Train the bundled MNIST flow: a one-million-parameter U-Net, about an hour on one CPU core.

    python recipes/mnist.py --data mnist.npz --out src/fewstep/models/weights/mnist.safetensors

`mnist.npz` holds `x_train`, uint8 of shape (60000, 28, 28). Interrupted runs resume from the
checkpoint that they keep in the folder `runs/mnist`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from fewstep.flows import train_flow
from fewstep.models import save_network
from fewstep.networks import UNet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=16_000)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    images = torch.from_numpy(np.load(args.data)["x_train"])[:, None]

    def draw(batch: int, generator: torch.Generator) -> torch.Tensor:
        rows = torch.randint(len(images), (batch,), generator=generator)
        return images[rows].float() / 127.5 - 1

    flow = train_flow(
        UNet(channels=1, width=32, multipliers=(1, 2), blocks=2, patch=2),
        draw,
        steps=args.steps,
        batch=64,
        lr=1e-3,
        bfloat16=True,
        checkpoint=Path("runs/mnist/checkpoint.safetensors"),
    )
    save_network(args.out, flow, recipe="recipes/mnist.py", data="MNIST", steps=args.steps, seed=0)


if __name__ == "__main__":
    main()
