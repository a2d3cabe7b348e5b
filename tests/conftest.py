"""Fixtures shared by several files: exact flows to measure against, and a counting network."""

from __future__ import annotations

import hashlib
import math
import os
import warnings
from pathlib import Path

import pytest
import torch

import fewstep as fs
from fewstep.classical import METHODS

# One thread a process, those that tests start too: the workers of pytest-xdist share the cores.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


@pytest.fixture
def few_rivals(monkeypatch):
    """Compare fits with few classical solvers: on a tiny network the others take most of the time."""
    for name in set(METHODS) - {"ab2", "ab4", "ddim", "deis3", "dpmpp_2m", "euler", "midpoint"}:
        monkeypatch.delitem(METHODS, name)


@pytest.fixture
def counted():
    """``counted(model)``: the same callable, with the times of its calls in ``.times``."""

    def wrap(model):
        def network(x, t, **conditions):
            network.times.append(t.detach().clone())
            return model(x, t, **conditions)

        network.times = []
        return network

    return wrap


@pytest.fixture
def linear_ode():
    """``dx/dt = a x + cos t`` with ``a = -1.5``, and its solution at ``t = 1``."""
    a = -1.5

    def velocity(x, t):
        t = t.reshape(-1, *[1] * (x.ndim - 1))
        return a * x + torch.cos(t)

    def solution(x0):
        particular = (math.sin(1) - a * math.cos(1)) / (1 + a**2)
        return (x0 + a / (1 + a**2)) * math.exp(a) + particular

    return velocity, solution


@pytest.fixture
def mixture_1d():
    """``mixture_1d(schedule, prediction)``: a smooth mixture on the line and its exact flow map.

    On the line the flow keeps quantiles, so ``x_t = F_t^-1(F_s(x_s))`` with ``F_t`` the distribution
    function of ``x_t``: a closed form that knows nothing of any velocity.
    """
    means, stds, weights = (
        torch.tensor(row, dtype=torch.float64) for row in ([-1.0, 0.8], [0.6, 0.5], [0.4, 0.6])
    )

    def make(schedule=None, prediction="velocity"):
        schedule = schedule or fs.schedules.CondOT()
        network = fs.models.GaussianMixture(means[:, None], stds, weights, schedule, prediction)

        def cdf(x, t):
            alpha, sigma = schedule(t)[:2]
            z = (x - alpha * means) / (alpha**2 * stds**2 + sigma**2).sqrt()
            return (weights * torch.special.ndtr(z)).sum(-1, keepdim=True)

        def transport(x, s, t):
            goal, low, high = cdf(x, s), torch.full_like(x, -400.0), torch.full_like(x, 400.0)
            for _ in range(70):
                middle = (low + high) / 2
                below = cdf(middle, t) < goal
                low, high = torch.where(below, middle, low), torch.where(below, high, middle)
            return (low + high) / 2

        return network, transport

    return make


@pytest.fixture
def line():
    """Starting points on the line, float64 of shape ``(9, 1)``."""
    return torch.linspace(-1.8, 1.8, 9, dtype=torch.float64)[:, None]


@pytest.fixture
def torchscript(tmp_path):
    """``torchscript(seed=0)``: a file with a tiny network of 12 features, called as Inception is."""

    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 12, 3, stride=2)

        def forward(self, x: torch.Tensor, return_features: bool = False):
            features = torch.tanh(self.conv(x.float() / 255)).mean(dim=(2, 3))
            return features if return_features else features[:, :2]

    def make(seed=0):
        path = tmp_path / f"network-{seed}.pt"
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.manual_seed(seed)
            torch.jit.script(Tiny()).save(str(path))
        return path

    return make


@pytest.fixture
def inception(torchscript, monkeypatch):
    """A file that passes for the standard Inception, named by ``FEWSTEP_INCEPTION``."""
    path = torchscript()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr("fewstep.metrics.features._inception._DIGEST", digest)
    monkeypatch.setattr("fewstep.metrics.features._references._INCEPTION_DIMS", 12)
    monkeypatch.setenv("FEWSTEP_INCEPTION", str(path))
    return path


@pytest.fixture
def shared():
    """The folder of real data, ``FEWSTEP_SHARED`` or beside the checkout."""
    folder = Path(os.environ.get("FEWSTEP_SHARED", Path(__file__).parents[2] / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the real data in {folder}")
    return folder
