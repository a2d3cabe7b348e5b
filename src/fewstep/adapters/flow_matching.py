"""Fields and schedules from flow_matching, and our solvers in place of its ``ODESolver``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import schedules
from .._predictions import Prediction
from ..field import Field
from ..schedules import Schedule
from ..solver import Solver
from ._flow_matching_solver import BaseODESolver
from ._network import Network, adapted_field
from ._solver import checked_solver

__all__ = ["ODESolver", "field", "schedule"]

_SCHEDULES: dict[str, Callable[[Any], Schedule]] = {
    "CondOTScheduler": lambda _: schedules.CondOT(),
    "PolynomialConvexScheduler": lambda own: schedules.Polynomial(float(own.n)),
    "VPScheduler": lambda own: schedules.VP(float(own.beta_min), float(own.beta_max)),
    "LinearVPScheduler": lambda _: schedules.LinearVP(),
    "CosineScheduler": lambda _: schedules.Cosine(),
}


class ODESolver(BaseODESolver):
    """A solver of ours where one of flow_matching is used: ``ODESolver(model, solver).sample(x_init)``.

    :meth:`sample` takes the arguments of theirs, and starts from ``x_init`` itself. The model is called as
    there, with keywords and ``t`` of shape ``()``; with ``time_shape="batch"``, of shape ``(B,)``. The field
    of the model is ``.field``, for :func:`fewstep.log_likelihood` and whatever else takes one.

    Args:
        velocity_model: the model, called as ``model(x=x, t=t, **extras)``.
        solver: the solver.
        scheduler: as for :func:`field`.
        prediction: as for :func:`field`.
        **options: options of :class:`~fewstep.Field`, such as guidance.

    Raises:
        ValueError: when ``solver`` is none, or is a table for another schedule than the model's.

    Warns:
        UserWarning: in :meth:`sample`, when the solver was fitted for another model, schedule or guidance.
    """

    def __init__(
        self,
        velocity_model: Network,
        solver: Solver,
        scheduler: Any = None,
        *,
        prediction: Prediction = "velocity",
        **options: Any,
    ) -> None:
        made = field(velocity_model, scheduler, prediction=prediction, **{"time_shape": "scalar", **options})
        checked_solver(solver, "ODESolver").check_ode("ODESolver")
        solver.readied(made.prediction, made.schedule)  # checks the schedule
        super().__init__(velocity_model, solver, made)


def field(
    model: Network, scheduler: Any = None, *, prediction: Prediction = "velocity", **options: Any
) -> Field:
    """Return the field of ``model(x=x, t=t, **extras) -> velocity``, a ``ModelWrapper`` or a similar network.

    flow_matching's time is ours, 0 for noise and 1 for data, and so is its velocity; the network is called
    with keywords. ``t`` has shape ``(B,)``, as in training; with ``time_shape="scalar"`` it has shape ``()``,
    as where its ``ODESolver`` calls. The extras of its ``sample`` are conditions.

    Args:
        model: the network.
        scheduler: the path, its scheduler, or a fewstep schedule; straight paths by default.
        prediction: the prediction of the network; flow_matching names them velocity, target (``"data"``)
            and epsilon (``"noise"``).
        **options: options of :class:`~fewstep.Field`.

    Raises:
        ValueError: on an unknown scheduler.
    """
    path = schedules.CondOT() if scheduler is None else schedule(scheduler)
    options.setdefault("clock", (0, 1))  # their networks take t, under schedules with timesteps too
    return adapted_field(model, _by_keywords, path, prediction, **options)


def schedule(scheduler: Any) -> Schedule:
    """Return the schedule of a flow_matching scheduler, or of a path that has one.

    Args:
        scheduler: a scheduler, recognised by class name and settings and compared with its own values at a
            few times; a fewstep schedule is returned unchanged.

    Raises:
        ValueError: on an unknown class, or one whose values differ from those of the named schedule.
    """
    scheduler = getattr(scheduler, "scheduler", scheduler)
    if isinstance(scheduler, Schedule):
        return scheduler
    name = type(scheduler).__name__
    if name not in _SCHEDULES:
        raise ValueError(
            f"flow_matching: no schedule is known for a {name}; known are {', '.join(_SCHEDULES)}, or pass "
            "one of fewstep.schedules."
        )
    found, t = _SCHEDULES[name](scheduler), torch.tensor([0.1, 0.5, 0.9])
    theirs = scheduler(t)
    for ours, own in zip(
        found(t), (theirs.alpha_t, theirs.sigma_t, theirs.d_alpha_t, theirs.d_sigma_t), strict=True
    ):
        if not torch.allclose(ours, torch.as_tensor(own).to(ours), rtol=1e-4, atol=1e-5):
            raise ValueError(
                f"flow_matching: this {name} is not {found!r}: at t = {t.tolist()} it gives "
                f"{torch.as_tensor(own).tolist()}, not {ours.tolist()}; pass the schedule as one of "
                "fewstep.schedules."
            )
    return found


def _by_keywords(model: Network, x: Tensor, time: Tensor, **conditions: Any) -> Tensor:
    output: Tensor = model(x=x, t=time, **conditions)
    return output
