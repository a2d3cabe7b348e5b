"""Closed forms of flows between Gaussians, against what training finds.

    python benchmarks/closed_forms.py             # three minutes on one CPU thread
    python benchmarks/closed_forms.py --no-train  # only what needs no trained network, in seconds

In one dimension, noise ``x0`` and data ``x1 = u`` standard normal, a coupling ``x0 = a u + b eps`` has

    best loss at time t     b^2 / ((t + (1 - t) a)^2 + (1 - t)^2 b^2),    over all times  b arctan2(b, a),
    KL                      (a^2 + b^2 - 1 - ln b^2) / 2,

and the flow moves from ``x(0)`` along ``x(t) = sqrt(V(t) / V(0)) x(0)``, V being the denominator above.
With ``a = r, b = sqrt(1 - r^2)`` the best loss is ``(1 - r^2) / (1 - 2 t (1 - t) (1 - r))``. Data of
standard deviation s with the KL weight beta are those of standard deviation 1 with beta / s. Two routes lead
to each number: through the objective with the best flow that there is, and by training a perceptron.
"""

from __future__ import annotations

import argparse
import itertools
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep.data import ArrayDataset, Dataset
from fewstep.flows import Coupling, FlowMatching, Learned, Paired, Settings, Trainer, flow_matching_loss
from fewstep.networks import MLP

COUNT = 200_000  # samples of a Monte Carlo estimate
SIGNS_U, SIGNS_EPS = (1, 1, -1, -1), (1, -1, 1, -1)

Velocity = Callable[[Tensor, Tensor], Tensor]
#: The quantity, its closed form, and what was found.
Row = tuple[str, float, float]


class Encoder(nn.Module):
    """``N(a x, b^2)``; preserves variance where ``b^2 = 1 - a^2``."""

    def __init__(self, preserving: bool) -> None:
        super().__init__()
        self.angle = nn.Parameter(torch.tensor(0.1, dtype=torch.float64))
        self.log_std = None if preserving else nn.Parameter(torch.tensor(-0.1, dtype=torch.float64))

    @property
    def a(self) -> Tensor:
        return self.angle.sin()

    @property
    def b(self) -> Tensor:
        return self.angle.cos() if self.log_std is None else self.log_std.exp()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.a.to(x) * x, (2 * self.b.log()).to(x).expand_as(x)


def best_flow(a: Tensor | float, b: Tensor | float) -> Velocity:
    """``E[x1 - x0 | x_t]``, linear as all is Gaussian."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        t = t.reshape(-1, 1)
        along = t + (1 - t) * a
        return ((1 - a) * along - (1 - t) * b**2) / (along**2 + (1 - t) ** 2 * b**2) * x

    return velocity


def normals(seed: int, count: int = COUNT) -> tuple[Tensor, Tensor]:
    """Two standard normal samples that are orthogonal and of unit variance exactly."""
    u, eps = torch.randn(2, count, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    u = (u - u.mean()) / u.square().mean().sqrt()
    eps = eps - eps.mean() - u * (eps * u).mean()
    return u, eps / eps.square().mean().sqrt()


def correlated(r: float, seed: int) -> tuple[Tensor, Tensor]:
    u, eps = normals(seed)
    return r * u + math.sqrt(1 - r * r) * eps, u


def times(count: int = COUNT) -> Tensor:
    """Evenly spaced in [0, 1]."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def best_loss(r: float, t: float) -> float:
    return (1 - r * r) / (1 - 2 * t * (1 - t) * (1 - r))


def curvature_ratio(velocity: Velocity, noise: Tensor) -> float:
    """Curvature of a flow over that of the independent coupling, ``2 - pi / 2``, by Euler's method.

    For noise N(0, 1). The curvature of a linear flow is proportional to the variance of the noise, so that
    noise of another variance tells it too, such as that which a network has been trained on.
    """
    path = fs.classical.euler(512).sample(fs.Field(velocity), noise, trajectory=True)
    return float(fs.metrics.curvature(path).mean() / noise.square().mean()) / (2 - math.pi / 2)


def best_encoder(encoder: Encoder, beta: float) -> Encoder:
    """Minimise the objective over the encoder, each with its best flow.

    The objective is quadratic in ``u`` and ``eps``, so that four points with the moments of the normal law,
    at each of many times, stand for it exactly.
    """
    t = times(1000).repeat(4)
    u, eps = (torch.tensor(signs).double().repeat_interleave(1000)[:, None] for signs in (SIGNS_U, SIGNS_EPS))
    coupling = Learned(encoder, beta)
    optimizer = torch.optim.LBFGS(
        encoder.parameters(), max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        x0, x1, kl = coupling(u, eps)
        loss = flow_matching_loss(best_flow(encoder.a, encoder.b), x0, x1, t) + coupling.kl_weight(0) * kl
        loss.backward()
        return loss

    optimizer.step(closure)
    return encoder


class Pairs(Dataset):
    """Noise and data of correlation ``r``."""

    def __init__(self, r: float) -> None:
        self.x0, self.x1 = (x.float() for x in correlated(r, seed=3))
        self.name, self.shape = f"correlation {r}", (1,)

    def __len__(self) -> int:
        return len(self.x1)

    def __getitem__(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        rows = torch.as_tensor(indices)
        return self.x0[rows], self.x1[rows]

    def fingerprint(self) -> str:
        return self.name


def train(coupling: Coupling, data: Dataset) -> FlowMatching:
    """A perceptron and the coupling, trained together; their averages."""
    torch.manual_seed(0)
    objective = FlowMatching(MLP((1,), width=32, blocks=2), coupling)
    steps = 3000
    settings = Settings(
        steps=steps, batch=1024, lr=4e-3, warmup=50, decay="cosine", ema=(200_000,), log_every=steps,
        validate_every=steps, checkpoint_every=steps, keep=1,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(objective, data, settings, out=folder, device="cpu", progress=False)
        trainer.run()
    averaged: FlowMatching = trainer.averages.first  # type: ignore[assignment]
    return averaged.eval()


def exact_flows() -> Iterator[Row]:
    for r in (0.0, 0.5, 0.9):
        x0, x1 = correlated(r, seed=0)
        flow = best_flow(r, math.sqrt(1 - r * r))
        for t in (0.1, 0.5, 0.8):
            loss = flow_matching_loss(flow, x0, x1, torch.full((COUNT,), t, dtype=torch.float64))
            yield f"best loss at t = {t}, correlation {r}: best flow", best_loss(r, t), float(loss)
    x0, x1 = correlated(0.0, seed=0)
    loss = flow_matching_loss(best_flow(0.0, 1.0), x0, x1, times())
    yield "best loss over all times, correlation 0: best flow", math.pi / 2, float(loss)
    curvature = (2 - math.pi / 2) * curvature_ratio(best_flow(0.0, 1.0), torch.ones(1, 1))
    yield "curvature, correlation 0: best flow", 2 - math.pi / 2, curvature


OPTIMAL_R = {1.0: 0.763, 2.0: 0.566, 5.0: 0.251, 10.0: 0.115, 20.0: 0.054}

#: By s / beta: a, b, aggregate variance, curvature over that of the independent coupling; noise N(0, 1).
FREE = {1.0: (0.520, 0.541, 0.564, 0.104), 0.5: (None, None, 0.63, 0.29)}


def free(ratio: float, encoder: Encoder, flow: Velocity, noise: Tensor, route: str) -> Iterator[Row]:
    a, b = encoder.a.item(), encoder.b.item()
    found = (a, b, a * a + b * b, curvature_ratio(flow, math.hypot(a, b) * noise))
    names = ("a", "b", "variance", "curvature ratio")
    for what, expected, value in zip(names, FREE[ratio], found, strict=True):
        if expected is not None:
            yield f"free encoder, s / beta = {ratio:g}: {what}, {route}", expected, value


def exact_encoders() -> Iterator[Row]:
    for beta, r in OPTIMAL_R.items():
        encoder = best_encoder(Encoder(preserving=True), beta)
        yield f"variance-preserving encoder, beta {beta:g}: r, best flow", r, encoder.a.item()
    for ratio in FREE:
        encoder = best_encoder(Encoder(preserving=False), 1 / ratio)
        flow = best_flow(encoder.a.item(), encoder.b.item())
        yield from free(ratio, encoder, flow, torch.ones(1, 1), "best flow")


def trained_flows() -> Iterator[Row]:
    for r in (0.0, 0.5, 0.9):
        flow = train(Paired(), Pairs(r)).flow
        x0, x1 = (x.float() for x in correlated(r, seed=4))
        with torch.no_grad():
            for t in (0.1, 0.5, 0.8):
                loss = flow_matching_loss(flow, x0, x1, torch.full((COUNT,), t))
                yield f"best loss at t = {t}, correlation {r}: trained", best_loss(r, t), float(loss)
            if r == 0:
                loss = flow_matching_loss(flow, x0, x1, times().float())
                yield "best loss over all times, correlation 0: trained", math.pi / 2, float(loss)
                curvature = (2 - math.pi / 2) * curvature_ratio(flow, x0[:20_000])
                yield "curvature, correlation 0: trained", 2 - math.pi / 2, curvature


def trained_encoders() -> Iterator[Row]:
    data = ArrayDataset(normals(seed=3)[0], name="normal")
    for beta, r in OPTIMAL_R.items():
        encoder = train(Learned(Encoder(preserving=True), beta), data).coupling.encoder
        yield f"variance-preserving encoder, beta {beta:g}: r, trained", r, encoder.a.item()
    noise = normals(seed=4)[0][:20_000].float()
    for ratio in FREE:
        found = train(Learned(Encoder(preserving=False), 1 / ratio), data)
        yield from free(ratio, found.coupling.encoder, found.flow, noise, "trained")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--no-train", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    parts = [exact_flows, exact_encoders]
    if not args.no_train:
        parts += [trained_flows, trained_encoders]
    print(f"{'':<64} expected    found deviation")
    for what, expected, found in itertools.chain.from_iterable(part() for part in parts):
        print(f"{what:<64} {expected:>8.4f} {found:>8.4f} {found / expected - 1:>+8.2%}", flush=True)


if __name__ == "__main__":
    main()
