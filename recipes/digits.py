"""Train the bundled digits flow: a perceptron on 8x8 digits, a minute on one CPU core.

Training stops early: a longer one memorises the 1,797 pictures and its field becomes that of their
kernel density estimate, which is bundled as `digits-kde`.

    python recipes/digits.py --out runs/digits-independent
    python recipes/digits.py --out runs/digits-learned --coupling learned --beta 5

(The bundled `digits` was trained with the same settings as the first of these, but by an earlier loop that
drew other random numbers.)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from fewstep.data import load
from fewstep.flows import FlowMatching, Independent, Learned, Settings, Trainer
from fewstep.networks import MLP, GaussianEncoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--coupling", choices=["independent", "learned"], default="independent")
    parser.add_argument("--beta", type=float, default=5.0)
    parser.add_argument("--steps", type=int, default=2_500)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    flow = MLP((1, 8, 8), width=256, blocks=3)
    coupling = Independent()
    if args.coupling == "learned":
        encoder = GaussianEncoder(MLP((1, 8, 8), width=128, blocks=1, out_channels=2))
        coupling = Learned(encoder, beta=args.beta)
    settings = Settings(
        steps=args.steps, batch=256, lr=2e-3, warmup=200, decay="cosine", ema=(128_000,), validate_every=500
    )
    Trainer(FlowMatching(flow, coupling), load("digits"), settings, out=args.out, device="cpu").run()


if __name__ == "__main__":
    main()
