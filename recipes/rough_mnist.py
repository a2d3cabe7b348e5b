"""Train the rough networks of the benchmarks: U-Nets on MNIST, minutes each on one CPU core.

    python recipes/rough_mnist.py --data mnist.npz --network flow --out runs/rough-flow
    python recipes/rough_mnist.py --data mnist.npz --network ddpm --out runs/rough-ddpm

Interrupted runs, by Ctrl-C or after --minutes, resume from the checkpoints in the folder that they write to.
The weights of the last step go to --weights, in half precision: with their averages, the output is smoother
in time. The few steps of the flow at a high learning rate make it rough, too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from threading import Timer
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import fewstep as fs
from fewstep._files import write_safetensors
from fewstep.data import load, save_pictures
from fewstep.flows import FlowMatching, Settings, Trainer

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from rough_networks import NETWORKS, SCHEDULES, WEIGHTS, field

#: Settings by network.
SETTINGS: dict[str, dict[str, Any]] = {
    "flow": {"steps": 750, "batch": 64, "lr": 4e-3},
    "ddpm": {"steps": 2711, "batch": 128, "lr": 1e-3},
}


class NoisePrediction(FlowMatching):
    """The simple loss of a DDPM (Ho et al. 2020, eq. 14), at integer timesteps."""

    schedule: fs.schedules.DDPM

    def forward(
        self,
        x1: Tensor,
        x0: Tensor | None = None,
        *,
        step: int = 0,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        k = torch.randint(self.schedule.count, (len(x1),), generator=generator)
        noise = torch.randn(x1.shape, generator=generator)
        product = torch.tensor(self.schedule.table)[k].view(-1, 1, 1, 1)
        guess = self.flow(product.sqrt() * x1 + (1 - product).sqrt() * noise, k)
        return {"loss": F.mse_loss(guess.float(), noise)}

    def preview(self, shape: tuple[int, ...], device: torch.device, stem: Path) -> dict[str, float]:
        samples = fs.classical.midpoint(24).sample(field("ddpm", self.flow), fs.noise(48, shape, seed=0))
        save_pictures(stem.with_name(f"{stem.name}-samples.png"), samples, columns=12)
        return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default="mnist", help="a path, or a name of fewstep.data")
    parser.add_argument("--network", choices=list(NETWORKS), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--steps", type=int, help="optimiser steps, instead of the network's own")
    parser.add_argument(
        "--minutes", type=float, default=600, help="stop after so many, to go on another time"
    )
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    network = NETWORKS[args.network]()
    kind = NoisePrediction if args.network == "ddpm" else FlowMatching
    settings = SETTINGS[args.network] | ({"steps": args.steps} if args.steps else {})
    trainer = Trainer(
        kind(network, schedule=SCHEDULES[args.network]),
        load(args.data),
        Settings(
            **settings, warmup=200, ema=(64_000,), precision="bf16", channels_last=True,
            validate_every=1000, checkpoint_every=250, page_every=0,
        ),
        out=args.out,
        device="cpu",
    )  # fmt: skip
    timer = Timer(60 * args.minutes, trainer.stop)
    try:
        timer.start()
        trainer.run()
    except KeyboardInterrupt:
        print(f"stopped at step {trainer.step}; the same command goes on from there")
    finally:
        timer.cancel()
    half = {name: x.half() if x.is_floating_point() else x for name, x in network.state_dict().items()}
    facts = {"trained_by": f"recipes/rough_mnist.py --network {args.network} --steps {trainer.step}"}
    write_safetensors(args.weights / f"rough-{args.network}.safetensors", half, facts)


if __name__ == "__main__":
    main()
