"""What is known exactly about flows between Gaussians, and what this package's training finds.

    python benchmarks/closed_forms.py             # five minutes on one CPU thread
    python benchmarks/closed_forms.py --no-train  # only what needs no trained network, half a minute

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
import math
import tempfile
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep.data import ArrayDataset, Dataset
from fewstep.flows import Coupling, FlowMatching, Learned, Paired, Settings, Trainer, flow_matching_loss
from fewstep.networks import MLP

COUNT = 200_000  # samples of a Monte Carlo estimate


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


def best_flow(a: Tensor | float, b: Tensor | float) -> Callable[[Tensor, Tensor], Tensor]:
    """``E[x1 - x0 | x_t]``, linear as all is Gaussian."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        t = t.reshape(-1, 1)
        along = t + (1 - t) * a
        return ((1 - a) * along - (1 - t) * b**2) / (along**2 + (1 - t) ** 2 * b**2) * x

    return velocity


def normals(count: int = COUNT, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two standard normal samples whose first and second moments are exact."""
    u, eps = torch.randn(2, count, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    u = (u - u.mean()) / u.square().mean().sqrt()
    eps = eps - eps.mean() - u * (eps * u).mean()
    return u, eps / eps.square().mean().sqrt()


def times(count: int = COUNT, seed: int = 1) -> Tensor:
    """Evenly spaced in [0, 1], in random order."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return (order.double() + 0.5) / count


def correlated(r: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    u, eps = normals(seed=seed)
    return r * u + math.sqrt(1 - r * r) * eps, u


def best_loss(r: float, t: float) -> float:
    return (1 - r * r) / (1 - 2 * t * (1 - t) * (1 - r))


def curvature(velocity: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Of a flow, by Euler's method in 512 steps."""
    field = fs.Field(velocity, shape=(1,), name="flow")
    path = fs.classical.euler(512).sample(field, normals(20_000)[0].float(), trajectory=True)
    return float(fs.metrics.curvature(path).mean())


def best_encoder(encoder: Encoder, beta: float) -> Encoder:
    """Minimise the objective over the encoder, each with its best flow."""
    u, eps = normals()
    t = times()
    coupling = Learned(encoder, beta)
    optimizer = torch.optim.LBFGS(encoder.parameters(), max_iter=100, line_search_fn="strong_wolfe")

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


def report(what: str, expected: float, found: float) -> None:
    print(f"{what:<64} {expected:>8.4f} {found:>8.4f} {found / expected - 1:>+8.2%}", flush=True)


def exact_flows() -> None:
    for r in (0.0, 0.5, 0.9):
        x0, x1 = correlated(r)
        flow = best_flow(r, math.sqrt(1 - r * r))
        for t in (0.1, 0.5, 0.8):
            loss = flow_matching_loss(flow, x0, x1, torch.full((COUNT,), t, dtype=torch.float64))
            report(f"best loss at t = {t}, correlation {r}: best flow", best_loss(r, t), float(loss))
    x0, x1 = correlated(0.0)
    loss = float(flow_matching_loss(best_flow(0.0, 1.0), x0, x1, times()))
    report("best loss over all times, correlation 0: best flow", math.pi / 2, loss)
    report("curvature, correlation 0: best flow", 2 - math.pi / 2, curvature(best_flow(0.0, 1.0)))


OPTIMAL_R = {1.0: 0.763, 2.0: 0.566, 5.0: 0.251, 10.0: 0.115, 20.0: 0.054}

#: By s / beta: a, b, aggregate variance, curvature over that of the independent coupling; noise N(0, 1).
FREE = {1.0: (0.520, 0.541, 0.564, 0.104), 0.5: (None, None, 0.63, 0.29)}


def report_free(ratio: float, encoder: Encoder, flow: Callable[[Tensor, Tensor], Tensor], route: str) -> None:
    a, b = encoder.a.item(), encoder.b.item()
    found = (a, b, a * a + b * b, curvature(flow) / (2 - math.pi / 2))
    for what, expected, value in zip(
        ("a", "b", "variance", "curvature ratio"), FREE[ratio], found, strict=True
    ):
        if expected is not None:
            report(f"free encoder, s / beta = {ratio:g}: {what}, {route}", expected, value)


def exact_encoders() -> None:
    for beta, r in OPTIMAL_R.items():
        encoder = best_encoder(Encoder(preserving=True), beta)
        report(f"variance-preserving encoder, beta {beta:g}: r, best flow", r, encoder.a.item())
    for ratio in FREE:
        encoder = best_encoder(Encoder(preserving=False), 1 / ratio)
        report_free(ratio, encoder, best_flow(encoder.a.detach(), encoder.b.detach()), "best flow")


def trained_flows() -> None:
    t = times()
    for r in (0.0, 0.5, 0.9):
        flow = train(Paired(), Pairs(r)).flow
        x0, x1 = (x.float() for x in correlated(r, seed=4))
        with torch.no_grad():
            for at in (0.1, 0.5, 0.8):
                loss = flow_matching_loss(flow, x0, x1, torch.full((COUNT,), at))
                report(f"best loss at t = {at}, correlation {r}: trained", best_loss(r, at), float(loss))
            if r == 0:
                loss = flow_matching_loss(flow, x0, x1, t.float())
                report("best loss over all times, correlation 0: trained", math.pi / 2, float(loss))
                report("curvature, correlation 0: trained", 2 - math.pi / 2, curvature(flow))


def trained_encoders() -> None:
    data = ArrayDataset(normals(seed=3)[0], name="normal")
    for beta, r in OPTIMAL_R.items():
        encoder = train(Learned(Encoder(preserving=True), beta), data).coupling.encoder
        report(f"variance-preserving encoder, beta {beta:g}: r, trained", r, encoder.a.item())
    for ratio in FREE:
        found = train(Learned(Encoder(preserving=False), 1 / ratio), data)
        report_free(ratio, found.coupling.encoder, found.flow, "trained")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--no-train", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{'':<64} expected    found deviation")
    exact_flows()
    exact_encoders()
    if not args.no_train:
        trained_flows()
        trained_encoders()


if __name__ == "__main__":
    main()
