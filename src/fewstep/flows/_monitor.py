"""Monitoring of training: held-out losses, the aggregate posterior of the noises, and samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from .. import classical, metrics
from .._files import replacing
from .._noises import noise
from ..data import is_picture, save_pictures
from ..field import Field
from ..report import flow_scatter
from ..solver import Path as Trajectory

__all__ = [
    "SAMPLES",
    "SHOWN",
    "aggregate_posterior",
    "how_straight",
    "means",
    "preview",
    "preview_of_data",
    "spread",
]

#: Held-out samples per validation, and per batch of it.
SAMPLES, _BATCH = 1024, 256

#: Number of data in a preview.
SHOWN = 12

#: Number of paths held in memory at once.
_PATHS = 32

#: Numbers of network calls of the previews, which use Euler's method.
_CALLS = (1, 2, 4, 8, 32)


def spread(count: int, samples: int) -> list[list[int]]:
    """Return batches of up to ``samples`` indices in total, evenly spread over ``count`` data."""
    chosen = [k * count // min(samples, count) for k in range(min(samples, count))]
    return [chosen[k : k + _BATCH] for k in range(0, len(chosen), _BATCH)]


def means(batches: Iterable[tuple[int, Mapping[str, Tensor | float]]]) -> dict[str, float]:
    """Return means over samples of the figures of batches with these numbers of samples."""
    totals: dict[str, float] = {}
    count = 0
    for samples, figures in batches:
        count += samples
        for name, figure in figures.items():
            totals[name] = totals.get(name, 0.0) + samples * float(figure)
    return {name: total / count for name, total in totals.items()}


def aggregate_posterior(x0: Tensor) -> dict[str, float]:
    """Measure the mismatch between coupled noises, over all data, and the N(0, I) that sampling starts from.

    Returns:
        ``aggregate_mean``: root mean square over dimensions of the mean, with the expected contribution
        of ``B`` samples' scatter subtracted; ``aggregate_variance``: mean over dimensions of the variance,
        with its smallest and largest value as ``aggregate_variance_min`` and ``_max``; ``aggregate_norm``:
        mean norm, relative to that of the chi distribution; ``aggregate_ks``: Kolmogorov-Smirnov distance
        of the norms from chi.
    """
    z = x0.flatten(1).double()
    B, d = z.shape
    variance = z.var(dim=0)
    mean_square = (z.mean(dim=0).square().mean() - variance.mean() / B).clamp(min=0)
    norms = z.norm(dim=1).sort().values
    chi_mean = math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
    cdf = torch.special.gammainc(torch.tensor(d / 2).to(z), norms.square() / 2)
    ranks = torch.arange(B + 1, dtype=z.dtype, device=z.device) / B
    ks = torch.maximum((cdf - ranks[:-1]).abs().max(), (ranks[1:] - cdf).abs().max())
    return {
        "aggregate_mean": mean_square.sqrt().item(),
        "aggregate_variance": variance.mean().item(),
        "aggregate_variance_min": variance.min().item(),
        "aggregate_variance_max": variance.max().item(),
        "aggregate_norm": norms.mean().item() / chi_mean,
        "aggregate_ks": ks.item(),
    }


def preview(field: Field, device: torch.device, stem: Path) -> dict[str, float]:
    """Sample from fixed noises with few and many calls, write images, and return measures of straightness."""
    shape = field.shape or ()
    picture = is_picture(shape)
    x0 = noise(64, shape, seed=0, device=device)
    samples = {nfe: classical.euler(nfe).sample(field, x0) for nfe in _CALLS[:-1]}
    path: Trajectory = classical.euler(_CALLS[-1]).sample(field, x0, trajectory=True)
    samples[_CALLS[-1]] = path.x1
    if picture:
        rows = torch.cat([x[:SHOWN] for x in samples.values()])
        save_pictures(stem.with_name(f"{stem.name}-samples.png"), rows, columns=SHOWN)
        kept = range(0, _CALLS[-1], 4)
        # x1 from x = alpha x1 + sigma x0 and u = alpha' x1 + sigma' x0; on straight paths x + (1 - t) u.
        at = field.schedule(path.call_times.to(path.states).reshape(-1, 1, *[1] * len(shape)))
        estimates = at.sigma * path.predictions - at.d_sigma * path.states[:-1]
        estimates = estimates / (at.d_alpha * at.sigma - at.alpha * at.d_sigma)
        for name, strip in (("trajectories", path.states), ("estimates", estimates)):
            rows = torch.cat([torch.cat([strip[list(kept), k], path.x1[k, None]]) for k in range(6)])
            save_pictures(stem.with_name(f"{stem.name}-{name}.png"), rows, columns=len(kept) + 1)
    elif shape == (2,):
        with replacing(stem.with_name(f"{stem.name}-samples.png")) as temporary:
            flow_scatter(samples, path.states).savefig(temporary, dpi=120)
    return _how_straight(path, samples[4])


def preview_of_data(field: Field, x1: Tensor, x0: Tensor | None, stem: Path) -> None:
    """Write images of data on their way to noise, and of the noises coupled to them.

    Args:
        field: the flow.
        x1: pictures, held out.
        x0: their noises, if they carry information about the pictures.
        stem: beginning of the names of the files.
    """
    euler, kept = classical.euler(_CALLS[-1]), range(0, _CALLS[-1], 4)
    back: Trajectory = euler.sample(field.reversed(), x1[:6], trajectory=True)
    rows = torch.cat([torch.cat([back.states[list(kept), k], back.x1[k, None]]) for k in range(len(x1[:6]))])
    save_pictures(stem.with_name(f"{stem.name}-inversions.png"), rows, columns=len(kept) + 1)
    if x0 is not None:
        made = [classical.euler(nfe).sample(field, x0) for nfe in (4, _CALLS[-1])]
        path = stem.with_name(f"{stem.name}-coupled.png")
        save_pictures(path, torch.cat([x1, x0, *made]), columns=len(x1))


@torch.no_grad()
def how_straight(field: Field, noises: Tensor) -> dict[str, float]:
    """Return ``curvature`` per dimension, and ``truncation_rmse_4``, the RMSE of 4 Euler steps against 32."""
    few, many = classical.euler(4), classical.euler(_CALLS[-1])
    return means(
        (len(x0), _how_straight(many.sample(field, x0, trajectory=True), few.sample(field, x0)))
        for x0 in noises.split(_PATHS)
    )


def _how_straight(path: Trajectory, four_calls: Tensor) -> dict[str, float]:
    curvature, error = metrics.curvature(path).mean(), metrics.rmse(four_calls, path.x1)
    return {"curvature": curvature.item(), "truncation_rmse_4": error.item()}
