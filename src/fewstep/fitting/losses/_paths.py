"""Losses against the reference path: at its points, or of single steps that start on it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..._names import check_name
from ..._table import Table
from ...families import Family, ScaleTime
from ...field import Field
from ...pairs import Pairs
from .._dense import DensePath
from ._loss import ENDPOINT_LOSSES, FLOOR, EndpointLoss, LeastSquares, Loss, endpoint_loss
from ._pairs import PathPairs

__all__ = ["PATH_LOSSES", "Nodes", "Steps", "bound_weights", "check_one_step", "local_errors"]

#: ``bound`` is the RMSE bound of the Bespoke paper, ``local`` the plain local truncation error.
PATH_LOSSES = ("bound", "local")


class Nodes(LeastSquares):
    """The mean over trajectory points and samples of ``rho`` of the residual ``x_i - x(t_i)``.

    ``x(t)`` is the reference path from the same noise, and ``t_i`` the time of point ``i`` under the current
    theta (:meth:`~fewstep.families.Family.point_times`), so that the derivative of a residual in its time is
    minus the reference velocity. Points ``1 .. n``, the sample included, have equal weights; stages have
    none. The loss works for every family and keeps the solver near the path; the iterate is still chosen by
    the sample.

    Args:
        loss: an endpoint loss, applied to each point.
    """

    def __init__(self, loss: str | EndpointLoss = "rmse") -> None:
        self.loss = endpoint_loss(loss, "Nodes")
        self.rho, self.slope = self.loss.rho, self.loss.slope
        self.name = f"nodes({self.loss.name})"

    @property
    def judge(self) -> LeastSquares:
        return ENDPOINT_LOSSES["rmse"]

    def prepared(self, pairs: Pairs, field: Field, *, rtol: float, atol: float) -> tuple[Pairs, int]:
        return PathPairs.solved(pairs, field, rtol=rtol, atol=atol)

    def points(self, family: Family) -> tuple[int, ...]:
        return family.points[1:]

    def times(self, family: Family, theta: Tensor) -> Tensor:
        return family.point_times(theta)[1:]

    def target(self, times: Tensor, pairs: Pairs) -> Tensor:
        assert isinstance(pairs, PathPairs)  # as `prepared` made them
        return pairs.path.at(times).flatten(0, 1)


class Steps(Loss):
    """``sum_i M_i d_i`` over the local errors ``d_i`` of a one-step solver's steps.

    Args:
        name: ``"bound"``, with the weights of the RMSE bound (:func:`bound_weights`), or ``"local"``,
            with ``M_i = 1``.
    """

    def __init__(self, name: str) -> None:
        check_name("Steps: name", name, PATH_LOSSES)
        self.name = name

    @property
    def judge(self) -> LeastSquares:
        return ENDPOINT_LOSSES["rmse"]

    def prepared(self, pairs: Pairs, field: Field, *, rtol: float, atol: float) -> tuple[Pairs, int]:
        return PathPairs.solved(pairs, field, rtol=rtol, atol=atol)

    def weights(self, family: Family) -> Callable[[Tensor], Tensor]:
        """Return the weights ``M(theta)``, or raise, before any network call, if the family has none."""
        start = torch.zeros(family.size, dtype=torch.float64)
        if self.name == "local":
            check_one_step(family.table(start), family.points)
            return lambda theta: torch.ones(len(family.points) - 1, dtype=theta.dtype)
        if not isinstance(family, ScaleTime):
            raise ValueError(
                "fit: loss='bound' is known for scale-time solvers only; use family='scale_time', or "
                "loss='rmse'."
            )
        bound_weights(family, start)  # raises if the bound of the base is unknown
        return partial(bound_weights, family)


def local_errors(
    velocity: Callable[[Tensor, Tensor], Tensor], table: Table, points: tuple[int, ...], path: DensePath
) -> Tensor:
    """Return the RMS error ``d_i`` of each step of a one-step solver started on the reference path.

    Bespoke Solvers, eq. 22-27: step ``i`` starts at ``x_aux(t_i)`` and is compared with
    ``x_aux(t_{i+1})``, where ``x_aux`` carries the gradient of the path with respect to time. All steps
    are evaluated in parallel, so one pass makes one batched call of the field per stage.

    Args:
        velocity: ``velocity(x, t)`` on states ``(n B, ...)`` and times ``(n B,)``.
        table: a table whose steps read only their own states, differentiable.
        points: the indices of its trajectory points.
        path: the reference path.

    Returns:
        Tensor of shape ``(n,)``: the mean over samples of each step's RMS error.
    """
    starts, stages = torch.tensor(points[:-1]), points[1] - points[0]
    x = path.at(torch.cat([table.times[starts], path.end.reshape(1)]))
    # Each copy waits for the device: move the tables once.
    C, D, starts = table.C.to(x), table.D.to(x), starts.to(x.device)

    def numbers(part: Tensor) -> Tensor:
        return part.reshape(-1, *[1] * (x.ndim - 1))

    states, calls = [x[:-1]], []
    for k in range(1, stages + 1):
        times = table.times[k - 1 :: stages].repeat_interleave(x.shape[1])
        u = velocity(states[-1].flatten(0, 1), times.to(x))
        calls.append(u.unflatten(0, x[:-1].shape[:2]))
        rows = starts + k - 1
        parts = [numbers(C[rows, starts + l]) * states[l] for l in range(k)]
        parts += [numbers(D[rows, starts + l]) * calls[l] for l in range(k)]
        states.append(torch.stack(parts).sum(0))
    error = (states[-1] - x[1:]).flatten(2).square().mean(2)
    return (error + FLOOR).sqrt().mean(1)


def check_one_step(table: Table, points: tuple[int, ...]) -> None:
    """Raise a ``ValueError`` unless every step reads only its own states and calls, equally many."""
    inside = torch.zeros_like(table.C, dtype=torch.bool)
    for start, end in zip(points, points[1:], strict=False):
        inside[start:end, start:end] = True
    lengths = {end - start for start, end in zip(points, points[1:], strict=False)}
    if len(lengths) > 1 or bool(((table.C != 0) | (table.D != 0))[~inside].any()):
        raise ValueError(
            "loss: a path loss needs a one-step solver, whose steps read nothing older than their start; "
            "use family='scale_time', or loss='rmse'."
        )


def bound_weights(family: ScaleTime, theta: Tensor, lipschitz: float = 1.0) -> Tensor:
    """Return ``M_i`` of the RMSE bound ``sum_i M_i d_i`` (Bespoke Solvers, eq. 24-27), shape ``(n,)``.

    ``M_n = 1`` and ``M_i = L_i ... L_{n-1}``, where ``L_j`` bounds the Lipschitz constant of the step from
    point ``j`` to ``j + 1``, with ``Lbar = |s'| / s + t' L``:

        RK1  ``L_j = s_j / s_{j+1} (1 + h Lbar_j)``
        RK2  ``L_j = s_j / s_{j+1} (1 + h Lbar_{j+1/2} (1 + h / 2 Lbar_j))``

    Args:
        family: scale-time on Euler or midpoint.
        theta: its parameters.
        lipschitz: the Lipschitz constant ``L`` assumed of the field.

    Raises:
        ValueError: for other bases, for which the paper gives no bound.
    """
    if family.base not in ("euler", "midpoint"):
        raise ValueError(
            f"loss: the bound is known for the bases euler and midpoint, not {family.base!r}; "
            "use loss='local', or loss='rmse', which serves multistep bases, too."
        )
    nodes, stages = family.nodes(theta), family.stages
    h = family.r.diff()
    Lbar = nodes.ds.abs() / nodes.s + nodes.dt * lipschitz
    at, s = Lbar[:-1:stages], nodes.s[::stages]
    if stages == 1:
        L = s[:-1] / s[1:] * (1 + h * at)
    else:
        L = s[:-1] / s[1:] * (1 + h * Lbar[1::2] * (1 + h / 2 * at))
    # M_i for i = 1 .. n is the product of L_j over j = i .. n - 1.
    return torch.cat([L[1:].flip(0).cumprod(0).flip(0), torch.ones_like(L[:1])])
