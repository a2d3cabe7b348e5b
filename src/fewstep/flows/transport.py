"""Couplings by optimal transport: within a batch, and in pools over the data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._extras import require
from .._hashing import fingerprint
from .._progress import progress_bar
from .._ranges import COUNT, NATURAL, check_range
from ..data import Dataset, scale
from ._batches import stream
from .couplings import Coupled, Coupling, Paired, without_kl

__all__ = ["MinibatchOT", "PooledOT", "TransportPairs"]

#: Most numbers of the noises that are held for matching.
_HELD = 2**26


class MinibatchOT(Coupling):
    """Noise matched with the data of a batch by exact optimal transport in squared distance.

    Tong et al., *Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal
    Transport* (TMLR 2024); Pooladian et al. (ICML 2023). The noise of each data sample is drawn from the
    plan; between batches of equal size the plan is a permutation, so that every noise and every
    data sample is used once. (torchcfm draws pairs from the plan with replacement, which omits 37 % of
    them.) The larger the batch, the straighter the flow.
    """

    name = "minibatch-ot"
    exact = True

    def couple(self, noise: Tensor, x1: Tensor, generator: torch.Generator | None) -> Coupled:
        ot = require("ot", "ot")
        with torch.no_grad():
            cost = torch.cdist(x1.flatten(1).float(), noise.flatten(1).float()).square().double().cpu()
            if not cost.isfinite().all():
                raise ValueError(
                    "MinibatchOT: noise and data must have finite squared distances in float32, but they are "
                    "not finite or too large; scale the data to about [-1, 1]."
                )
            uniform = torch.full((len(x1),), 1 / len(x1), dtype=torch.float64)
            # POT solves numpy arrays in C; its torch backend would only convert back and forth.
            plan = torch.from_numpy(ot.emd(uniform.numpy(), uniform.numpy(), cost.numpy()))
            device = None if generator is None else generator.device
            rows = torch.multinomial(plan.to(device), 1, generator=generator)[:, 0].to(noise.device)
        return without_kl(noise[rows], x1)


class PooledOT(Paired):
    """Noise matched with data in pools larger than batches, before training: minibatch-OT for small batches.

    A :class:`Trainer` trains on the :class:`TransportPairs` of its data, and mirrors a noise with its sample
    where the settings have flips; other loops call :meth:`prepare`. Over the data of one label the noises are
    not N(0, I): take it for flows without conditions.

    Args:
        noises: noises per data sample; training goes through the pairs again after so many epochs.
        pool: pairs that are matched at once.
        rounds: how often all pairs are divided into pools and matched.
    """

    name = "pooled-ot"
    exact = True

    def __init__(self, noises: int = 8, pool: int = 512, rounds: int = 4) -> None:
        super().__init__()
        self.noises, self.pool, self.rounds = check_range(
            "PooledOT", COUNT, noises=noises, pool=pool, rounds=rounds
        )

    def prepare(self, data: Dataset, *, seed: int = 0, progress: bool = False) -> TransportPairs:
        return TransportPairs(data, self.noises, self.pool, self.rounds, seed=seed, progress=progress)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "noises": self.noises, "pool": self.pool, "rounds": self.rounds}


class TransportPairs(Dataset):
    """Pairs ``(x0, x1)`` of noises and data, matched to have a small mean squared distance.

    All noises and data are divided into pools at random, and those of a pool are matched by exact optimal
    transport; then again, with other pools. Every round shortens the distance, and as each is a permutation,
    the noises remain exactly N(0, I) and all data are used equally often. Several rounds of small pools cost
    less than one of large pools, whose time grows as the cube of their size.

    Noises are drawn again when they are read, so that memory holds one number per pair; matching takes half
    a gigabyte.

    Args:
        data: the data set.
        noises: pairs per data sample.
        pool: pairs that are matched at once.
        rounds: how often all pairs are divided into pools and matched.
        seed: seed of the noises and of the pools.
        progress: show a progress bar.

    Attributes:
        matched: the data sample of each pair, ``(len(self),)``.

    Raises:
        ValueError: when the data are pairs already, or a number is out of range.
        ModuleNotFoundError: without the extra ``ot``.
    """

    def __init__(
        self,
        data: Dataset,
        noises: int = 8,
        pool: int = 512,
        rounds: int = 4,
        *,
        seed: int = 0,
        progress: bool = False,
    ) -> None:
        counts = check_range("TransportPairs", COUNT, noises=noises, pool=pool, rounds=rounds)
        (self.seed,) = check_range("TransportPairs", NATURAL, seed=seed)
        self.data, self.name, self.shape = data, data.name, data.shape
        self._facts = [data.fingerprint(), *counts, self.seed]
        generator = torch.Generator().manual_seed(stream(self.seed))
        self.matched = torch.cat([torch.randperm(len(data), generator=generator) for _ in range(noises)])
        numbers = torch.arange(len(self)).chunk(-(-len(self) * math.prod(self.shape) // _HELD))
        with progress_bar(progress, total=len(self) * rounds, desc="matching", unit="noise") as bar:
            for block in numbers:
                z, x1 = (each.flatten(1) for each in self[block])
                at = torch.arange(len(block))
                for _ in range(rounds):
                    for rows in torch.randperm(len(block), generator=generator).split(pool):
                        at[rows] = at[rows[_assignment(z[rows] @ x1[at[rows]].T)]]
                        bar.update(len(rows))
                self.matched[block] = self.matched[block[at]]

    def __len__(self) -> int:
        return len(self.matched)

    def __getitem__(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        rows = torch.as_tensor(indices, dtype=torch.long, device="cpu")
        x1 = self.data[self.matched[rows]]
        if isinstance(x1, tuple):
            raise ValueError(
                f"PooledOT: {self.name} holds pairs with their own noises; train on them with Paired."
            )
        return torch.stack([self._noise(k) for k in rows.tolist()]), scale(x1)

    def fingerprint(self) -> str:
        return fingerprint(self._facts)

    def _noise(self, k: int) -> Tensor:
        generator = torch.Generator().manual_seed(stream(self.seed, k))
        return torch.randn(self.shape, generator=generator)


def _assignment(gain: Tensor) -> Tensor:
    """Return for each row of a square matrix its column in the permutation with the largest sum."""
    _, columns = require("scipy.optimize", "ot").linear_sum_assignment(gain.numpy(), maximize=True)
    return torch.from_numpy(columns)
