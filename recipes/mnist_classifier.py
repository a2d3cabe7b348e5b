"""Train the bundled MNIST classifier, whose features measure quality: ten minutes on one CPU core.

    python recipes/mnist_classifier.py --data mnist.npz --out src/fewstep/metrics/features/weights

It writes `mnist-classifier.safetensors`, with its accuracy on the test set, which is looked at once, when
training is over. The statistics of the training pictures beside it are made with

    FEWSTEP_DATA=data fewstep fid ref mnist --features mnist --batch 500 --out mnist-train.npz
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fewstep._files import write_safetensors
from fewstep.data import load
from fewstep.metrics.features._classifiers import MnistClassifier


def labels(path: Path, split: str) -> Tensor:
    with np.load(path, allow_pickle=False) as archive:
        return torch.from_numpy(archive[f"y_{split}"]).long()


def distort(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Turn each picture by up to 10 degrees, scale it by up to 10 % and shift it by up to 2 pixels."""
    angle, size, *shift = torch.rand(4, len(pictures), generator=generator).mul(2).sub(1)
    angle, size = angle * math.radians(10), 1 + size / 10
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    move = torch.stack(shift, 1)[:, :, None] * (2 / 14)  # half a side of 28 pixels is 1
    grid = F.affine_grid(
        torch.cat([turn * size[:, None, None], move], 2), list(pictures.shape), align_corners=False
    )
    return F.grid_sample(pictures.float(), grid, align_corners=False)


def train(pictures: Tensor, digits: Tensor, epochs: int, batch: int = 128) -> MnistClassifier:
    """Adam on the cross-entropy of distorted pictures, with one cycle of the learning rate."""
    generator = torch.Generator().manual_seed(0)
    network = MnistClassifier()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    steps = len(pictures) // batch
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=epochs * steps)
    for epoch in range(epochs):
        order = torch.randperm(len(pictures), generator=generator)[: steps * batch].view(-1, batch)
        total = torch.zeros(())
        for rows in order:
            loss = F.cross_entropy(network.logits(distort(pictures[rows], generator)), digits[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
            total += loss.detach()
        print(f"epoch {epoch + 1}: loss {total.item() / steps:.4f}", flush=True)
    return network.eval()


@torch.no_grad()
def accuracy(network: MnistClassifier, pictures: Tensor, digits: Tensor) -> float:
    guesses = torch.cat([network.logits(part).argmax(1) for part in pictures.split(1000)])
    return (guesses == digits).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    data, test = load(args.data), load(args.data, split="test")
    network = train(data[range(len(data))], labels(args.data, "train"), args.epochs)
    right = accuracy(network, test[range(len(test))], labels(args.data, "test"))
    facts = {
        "network": "mnist",
        "test_accuracy": f"{right:.4f}",
        "trained_by": f"recipes/mnist_classifier.py --epochs {args.epochs}",
    }
    write_safetensors(args.out / "mnist-classifier.safetensors", network.state_dict(), facts)
    print(f"accuracy on the test set: {right:.2%}")


if __name__ == "__main__":
    main()
