"""The claim on the limit of the learned scales and times, with its figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fewstep as fs
from fewstep.fitting import Adam
from fewstep.schedules import VP, CondOT, Schedule

from ._claim import BESPOKE, Measured, Row, Size, claim, task

FIGURE = "scales-and-times.png"


@claim(
    "limit",
    "Learned scales and times converge as n grows; DDIM is one such transform",
    published="t_r roughly linear and s_r near 1 for most models; they seem to converge as n grows",
    source=f"{BESPOKE}, Figures 17 to 19, and reviews",
    remark="So the limit is near the identity under both schedules, DDIM under CondOT but not under "
    "VP. But fits start there, and with more steps there is less to gain, so that a part of it may be "
    "that Adam moves less",
    figures=(FIGURE,),
)
def limit(size: Size) -> Measured:
    """Fit more and more steps.

    Scale-time RK2 with n steps by Adam under the bound (250 iterations, rate 0.01), on the digits flow
    under CondOT and the same flow under VP. Columns: the largest change of t_r and of s_r from n / 2,
    and the root mean square distance of (t_r, log s_r) from the identity and from DDIM's transform: DDIM
    is Euler's method in the coordinates x / (alpha + sigma) and alpha / (alpha + sigma), so that s = 1 /
    (alpha + sigma) and r = alpha / (alpha + sigma). Under CondOT that is the identity: DDIM is Euler's
    method itself.
    """
    one, curves, closer = task("digits", size.pairs, size.test), {}, []
    changes: dict[str, list[float]] = {}
    for schedule in size.few(CondOT(), VP()):
        own, before = one._replace(field=one.field.reschedule(schedule)), None
        known = {"identity": _identity(), "DDIM": ddim_transform(schedule)}
        for n in size.few(4, 8, 16):
            adam = Adam(2 if size.quick else 250, lr=0.01)
            solver = own.variant(2 * n, "scale_time", "bound", adam)
            t, s = (_on_grid(solver.family[key]) for key in ("t", "s"))
            curves[schedule.name, n] = t, s
            change = ["", ""] if before is None else [_most(t - before[0]), _most(s - before[1])]
            if before is not None:
                changes.setdefault(schedule.name, []).append(max(change))
            away = {f"from {name}": _apart((t, s), other) for name, other in known.items()}
            closer.append((schedule.name, away["from DDIM"] < away["from identity"]))
            yield Row(
                f"{schedule.name}, n = {n}",
                {"change of t": change[0], "change of s": change[1], **away, "RMSE": own.rmse(solver)},
                None
                if before is None or len(changes[schedule.name]) < 2
                else changes[schedule.name][-1] < changes[schedule.name][-2],
            )
            before = t, s
    if size.figures:
        draw(curves, size.figures / FIGURE)
    vp = [yes for name, yes in closer if name == VP.name]
    return (
        "largest change at each doubling: "
        + "; ".join(f"{name} " + ", ".join(f"{c:.3f}" for c in found) for name, found in changes.items())
        + ". Under VP the learned transform is nearer to DDIM's than to the identity in "
        f"{sum(vp)} of {len(vp)} rows"
    )


def _grid() -> Tensor:
    return torch.linspace(0, 1, 65, dtype=torch.float64)


def _on_grid(values: list[float]) -> Tensor:
    """Interpolate values at equal steps of r linearly, without the last one where slopes are unused."""
    at = _grid() * (len(values) - 1)
    low = at.floor().long().clamp(max=len(values) - 2)
    known = torch.tensor(values, dtype=torch.float64)
    return known[low] + (at - low) * (known[low + 1] - known[low])


def _identity() -> tuple[Tensor, Tensor]:
    return _grid(), torch.ones_like(_grid())


def ddim_transform(schedule: Schedule) -> tuple[Tensor, Tensor]:
    """Return t_r and s_r of DDIM on a grid of r, scaled to ``s_0 = 1``."""
    r = _grid()
    t = schedule.inverse_log_snr(torch.logit(r, eps=1e-9))  # alpha / (alpha + sigma) = r
    at = schedule(t.clamp(0, 1))
    s = 1 / (at.alpha + at.sigma)
    return t.clamp(0, 1), s / s[0]


def _most(difference: Tensor) -> float:
    return float(difference.abs().max())


def _apart(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    (t, s), (u, v) = one, other
    return float(((t - u).square() + (s.log() - v.log()).square()).mean().sqrt())


def draw(curves: dict[Any, tuple[Tensor, Tensor]], path: Path) -> None:
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(name for name, _ in curves))
    picture = Figure(figsize=(7.6, 3.1 * len(names)), layout="constrained")
    panels = picture.subplots(len(names), 2, squeeze=False)
    for row, name in zip(panels, names, strict=True):
        known = ddim_transform(fs.schedules.from_dict({"name": name}))
        for axes, k, label in zip(row, (0, 1), ("t(r)", "s(r)"), strict=True):
            axes.plot(_grid(), _identity()[k], color="0.8", linewidth=1, label="identity")
            axes.plot(_grid(), known[k], color="0.3", linewidth=1, linestyle="--", label="DDIM")
            for (own, n), both in curves.items():
                if own == name:
                    axes.plot(_grid(), both[k], linewidth=1.2, label=f"n = {n}")
            axes.set(title=f"{label}, digits under {name}", xlabel="r")
            axes.grid(alpha=0.3, linewidth=0.5)
            axes.spines[["top", "right"]].set_visible(False)
    panels[0, 0].legend(frameon=False, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=110)
