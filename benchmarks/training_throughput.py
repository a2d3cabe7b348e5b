"""Training throughput over that of the plain loop that torchcfm's CIFAR-10 example uses.

    python benchmarks/training_throughput.py                       # this package's U-Net, a few minutes
    python benchmarks/training_throughput.py --network song-unet   # the MNIST preset of the DDPM++ U-Net
    python benchmarks/training_throughput.py --network small       # a tiny U-Net: overheads show

Protocol: the same network, pictures (random, 28 x 28) and batch size in one process and one thread;
float32, Adam with linear warm-up, gradients clipped at 1, one average of the weights. Short blocks of steps
of the two loops alternate; every round gives one ratio, and the median over rounds counts. Time is that of
the processor, which other work on the machine disturbs little, and that of the clock. The plain loop is
spared the decoding of pictures: its data are floats in [-1, 1] from the start.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fewstep._extras import require
from fewstep.data import ArrayDataset, scale
from fewstep.flows import FlowMatching, Independent, Settings, Trainer
from fewstep.networks import SongUNet, UNet, song_unet_preset

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet": lambda: UNet(channels=1, width=32, multipliers=(1, 2), blocks=2, patch=2),
    "song-unet": lambda: SongUNet(**song_unet_preset("mnist")),
    "small": lambda: UNet(channels=1, width=8, multipliers=(1,), blocks=1, patch=4),
}
LR, WARMUP, CLIP, DECAY = 2e-4, 5000, 1.0, 0.9999


class PlainLoop:
    """Flow matching as torchcfm's examples write it; their networks are called ``net(t, x)``."""

    def __init__(self, network: nn.Module, pictures: Tensor, batch: int) -> None:
        torchcfm = require("torchcfm", "dev")
        self.matcher = torchcfm.ConditionalFlowMatcher(sigma=0.0)
        self.network, self.average = network, copy.deepcopy(network)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=LR)
        warm_up = torch.optim.lr_scheduler.LambdaLR
        self.schedule = warm_up(self.optimizer, lambda step: min(step, WARMUP) / WARMUP)
        self.loader = DataLoader(TensorDataset(scale(pictures)), batch, shuffle=True, drop_last=True)

    def run(self, steps: int) -> None:
        batches = self._endless()
        for _ in range(steps):
            self._step(batches)

    def _endless(self) -> Iterator[Tensor]:
        while True:
            for (x1,) in self.loader:
                yield x1

    def _step(self, batches: Iterator[Tensor]) -> None:
        self.optimizer.zero_grad()
        x1 = next(batches)
        x0 = torch.randn_like(x1)
        t, xt, ut = self.matcher.sample_location_and_conditional_flow(x0, x1)
        loss = torch.mean((self.network(xt, t) - ut) ** 2)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimizer.step()
        self.schedule.step()
        source, target = self.network.state_dict(), self.average.state_dict()
        for key in source:
            target[key].data.copy_(target[key].data * DECAY + source[key].data * (1 - DECAY))


def trainer(network: nn.Module, pictures: Tensor, batch: int, out: str) -> Trainer:
    settings = Settings(batch=batch, lr=LR, warmup=WARMUP, clip=CLIP, precision="no")
    data = ArrayDataset(pictures, name="random pictures")
    return Trainer(
        FlowMatching(network, Independent()), data, settings, out=out, device="cpu", progress=False
    )


def seconds(block: Callable[[], object]) -> Tensor:
    """Of the processor and of the clock."""
    started = time.process_time(), time.perf_counter()
    block()
    return torch.tensor([time.process_time() - started[0], time.perf_counter() - started[1]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="unet")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--steps", type=int, default=5, help="of a block")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pictures = torch.randint(256, (4096, 1, 28, 28), dtype=torch.uint8)
    network = NETWORKS[args.network]()
    try:
        plain = PlainLoop(copy.deepcopy(network), pictures, args.batch)
    except ImportError:
        raise SystemExit(
            "training_throughput: compares with torchcfm, which is not installed; "
            "`pip install --no-deps torchcfm` suffices."
        ) from None
    with tempfile.TemporaryDirectory() as out:
        ours = trainer(network, pictures, args.batch, out)
        blocks = {
            "fewstep's trainer": lambda: ours.seconds_per_step(args.steps - 1),  # after a step of warm-up
            "plain loop": lambda: plain.run(args.steps),
        }
        rounds: dict[str, list[Tensor]] = {name: [] for name in blocks}
        for k in range(args.rounds + 1):
            for name in sorted(blocks, reverse=bool(k % 2)):
                rounds[name].append(seconds(blocks[name]) / args.steps)
    mine, theirs = (torch.stack(found[1:]) for found in rounds.values())  # the first round warms up
    for name, found in zip(blocks, (mine, theirs), strict=True):
        processor, clock = 1e3 * found.median(0).values
        print(f"{name:<18} {processor:8.1f} ms a step of the processor, {clock:8.1f} of the clock")
    quartiles = (theirs / mine).quantile(torch.tensor([0.25, 0.5, 0.75]), dim=0)
    for kind, (low, middle, high) in zip(("processor", "clock"), quartiles.T, strict=True):
        print(f"throughput over the plain loop, {kind}: {middle:.3f} (middle half {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
