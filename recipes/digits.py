"""Train the bundled digits flow: a perceptron on 8x8 digits, half a minute on one CPU core.

Training stops early: a longer one memorises the 1,797 pictures and its field becomes that of their
kernel density estimate, which is bundled as `digits-kde`.

    python recipes/digits.py --out src/fewstep/models/weights/digits.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from fewstep.data import digits
from fewstep.flows import train_flow
from fewstep.models import save_network
from fewstep.networks import MLP


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2_500)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    images, _ = digits()

    def draw(batch: int, generator: torch.Generator) -> torch.Tensor:
        return images[torch.randint(len(images), (batch,), generator=generator)]

    flow = train_flow(MLP((1, 8, 8), width=256, blocks=3), draw, steps=args.steps, batch=256, lr=2e-3)
    save_network(args.out, flow, recipe="recipes/digits.py", data="8x8 digits", steps=args.steps, seed=0)


if __name__ == "__main__":
    main()
