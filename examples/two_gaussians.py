"""Why a learned coupling needs few network calls: a study in the plane, two minutes on a CPU.

    python examples/two_gaussians.py --out two-gaussians/

Data in two clusters are reached from a wide Gaussian along three kinds of paths: those of a diffusion
model, straight lines from independent noise (rectified flow), and straight lines from noise that an encoder
has learned to place where its datum is easily reached (after Lee, Kim and Ye, *Minimizing Trajectory
Curvature of ODE-based Generative Models*, ICML 2023, section 5). Lines that cross teach a flow to curve, and
what curves needs many steps.

The data are mixtures of N((-8, 8), C) and N((8, 8), C), C = diag(3, 0.1), and the noise is N(0, diag(36, 1)).
This package draws its noise from N(0, I), so everything happens in the coordinates ``x / (6, 1)`` of the
noise, while losses, curvatures, errors and pictures are in those of the plane.

The folder receives ``two-gaussians.png``, ``results.json``, and the trainings, which resume.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import fewstep as fs
from fewstep.data import ArrayDataset
from fewstep.flows import Coupling, FlowMatching, Independent, Learned, Settings, Trainer
from fewstep.networks import MLP, GaussianEncoder

CENTRES = torch.tensor([[-8.0, 8.0], [8.0, 8.0]])
STD = torch.tensor([3.0, 0.1]).sqrt()
NOISE_STD = torch.tensor([6.0, 1.0])

CALLS = (1, 2, 3, 4, 8, 16, 20)
SEED = 2301_12003  # of what is measured; trainings draw from seed 0


def draw(count: int, seed: int) -> Tensor:
    """Data, in the coordinates of the plane; as many of one cluster as of the other."""
    generator = torch.Generator().manual_seed(seed)
    return CENTRES[torch.arange(count) % 2] + STD * torch.randn(count, 2, generator=generator)


def encoder() -> GaussianEncoder:
    torch.manual_seed(1)
    return GaussianEncoder(MLP((2,), width=64, blocks=2, out_channels=4))


def flow_matching(coupling: Coupling, schedule: fs.schedules.Schedule | None = None) -> FlowMatching:
    """Return the objective that is trained, in the coordinates of the noise."""
    torch.manual_seed(0)
    return FlowMatching(MLP((2,), width=64, blocks=3), coupling, schedule, units=NOISE_STD)


def train(objective: FlowMatching, out: Path, steps: int) -> fs.Field:
    settings = Settings(
        steps=steps, batch=512, lr=2e-3, warmup=100, decay="cosine", ema=(100_000,), checkpoint_every=2000
    )
    data = ArrayDataset(draw(100_000, seed=0) / NOISE_STD, name="two Gaussians")
    flow = Trainer(objective, data, settings, out=out, device="cpu").run()
    return fs.Field(flow, objective.schedule, shape=(2,), name=out.name)


def paths(field: fs.Field, noise: Tensor, calls: int) -> fs.Path:
    """Euler's paths, in the coordinates of the plane."""
    path = fs.classical.euler(calls).sample(field, noise, trajectory=True)
    return path._replace(x1=path.x1 * NOISE_STD, states=path.states * NOISE_STD)


def measure(field: fs.Field, count: int) -> dict[str, Any]:
    """Curvature, and truncation error against the reference from the same noise."""
    noise = fs.noise(count, (2,), seed=SEED)
    exact = fs.reference.pairs(field, noise, rtol=1e-6, atol=1e-6, batch=count).x1 * NOISE_STD
    rmse = {calls: fs.metrics.rmse(paths(field, noise, calls).x1, exact).item() for calls in CALLS}
    return {"curvature": fs.metrics.curvature(paths(field, noise, 128)).mean().item(), "rmse": rmse}


# What follows draws.

COLOURS = ("#c8553d", "#2a6f97")  # of the paths to the left and to the right cluster
LEFT, RIGHT, BOTTOM, TOP = -19.0, 19.0, -4.2, 11.2


def forward_paths(objective: FlowMatching, count: int) -> Tensor:
    """The paths ``x_t`` between coupled noise and data that training shows, ``(T, B, 2)``."""
    with torch.no_grad():
        data = draw(count, SEED) / NOISE_STD
        x0, x1, _ = objective.coupling(data, fs.noise(count, (2,), seed=SEED))
    at = objective.schedule(torch.linspace(0, 1, 65)[:, None, None])
    return (at.alpha * x1 + at.sigma * x0) * NOISE_STD


def draw_paths(axes: Axes, states: Tensor) -> None:
    """Paths coloured by the cluster that they end in, over the data (grey) and the noise (dashed)."""
    x, y = torch.meshgrid(torch.linspace(LEFT, RIGHT, 300), torch.linspace(BOTTOM, TOP, 300), indexing="xy")
    at = torch.stack([x, y], dim=-1)
    data = torch.stack([density(at, centre, STD) for centre in CENTRES]).sum(0)
    noise = density(at, torch.zeros(2), NOISE_STD)
    plane = x.numpy(), y.numpy()
    axes.contourf(*plane, data.numpy(), levels=[0.05, 0.3, 0.65, 1.1], colors=["0.9", "0.83", "0.75"])
    axes.contour(
        *plane, noise.numpy(), levels=[0.1353, 0.6065], colors="0.7", linewidths=0.6, linestyles="dashed"
    )
    for right, colour in enumerate(COLOURS):
        chosen = states[:, (states[-1, :, 0] > 0) == bool(right)]
        for path in chosen.unbind(1):
            axes.plot(*path.T, color=colour, linewidth=0.6, alpha=0.35, solid_capstyle="round")
        axes.scatter(*chosen[0].T, s=3, color="0.45", linewidths=0, zorder=3)
        axes.scatter(*chosen[-1].T, s=6, color=colour, linewidths=0, zorder=4)
    axes.set(xlim=(LEFT, RIGHT), ylim=(BOTTOM, TOP), xticks=[-8, 0, 8], yticks=[0, 8], aspect="equal")
    axes.spines[:].set_color("0.8")
    axes.tick_params(length=0, labelsize=7, labelcolor="0.5")


def density(at: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Of a normal distribution, over that of its mean."""
    return (-((at - mean) / std).square().sum(-1) / 2).exp()


def figure(
    objectives: dict[str, FlowMatching], fields: dict[str, fs.Field], rows: dict[str, Any], count: int
) -> Figure:
    picture = Figure(figsize=(3.4 * len(fields), 4.8), layout="compressed")
    panels = picture.subplots(3, len(fields), sharex=True, sharey=True, squeeze=False)
    noise = fs.noise(count, (2,), seed=SEED, start=10**6)
    for column, (name, field) in zip(panels.T, fields.items(), strict=True):
        draw_paths(column[0], forward_paths(objectives[name], count))
        for axes, calls in zip(column[1:], (20, 3), strict=True):
            draw_paths(axes, paths(field, noise, calls).states)
            error = f"error {rows[name]['rmse'][calls]:.2f}"
            axes.text(0.98, 0.04, error, transform=axes.transAxes, fontsize=7, color="0.3", ha="right")
        top, curvature = column[0], f"curvature {rows[name]['curvature']:.2f}"
        top.set_title(f"{name}\n", fontsize=11)
        top.text(0.5, 1.05, curvature, transform=top.transAxes, fontsize=8, color="0.3", ha="center")
    for axes, label in zip(panels[:, 0], ("training pairs", "20 calls", "3 calls"), strict=True):
        axes.set_ylabel(label, fontsize=10)
    return picture


def table(rows: dict[str, Any]) -> str:
    lines = ["", f"{'':<18} curvature   RMSE at " + "".join(f"{f'{calls} calls':>10}" for calls in CALLS)]
    for name, row in rows.items():
        errors = "".join(f"{row['rmse'][calls]:>10.3f}" for calls in CALLS)
        lines.append(f"{name:<18} {row['curvature']:>9.3f}           {errors}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("two-gaussians"))
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that it runs")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    steps, samples, drawn = (30, 64, 10) if args.quick else (4000, 4096, 150)

    objectives = {
        "diffusion path": flow_matching(Independent(), fs.schedules.VP()),
        "rectified flow": flow_matching(Independent()),
        "learned coupling": flow_matching(Learned(encoder(), beta=10)),
    }
    fields, rows = {}, {}
    for name, objective in objectives.items():
        fields[name] = train(objective, args.out / "runs" / name.replace(" ", "-"), steps)
        rows[name] = measure(fields[name], samples)

    print(table(rows))
    results = {"steps": steps, "samples": samples, "seed": SEED, "rows": rows}
    (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    figure(objectives, fields, rows, drawn).savefig(args.out / "two-gaussians.png", dpi=180)
    print(f"\nWrote {args.out / 'two-gaussians.png'} and {args.out / 'results.json'}.")


if __name__ == "__main__":
    main()
