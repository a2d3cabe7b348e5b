"""Reading the arguments of a fit, with a clear word where they do not fit together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from .. import classical
from ..families import Family, NonStationary, ScaleTime, Timesteps
from ..field import Field
from ..solver import Solver
from ._rivals import velocity_table
from ._team import Team
from .losses import ENDPOINT_LOSSES, PATH_LOSSES, bound_weights, check_one_step

__all__ = [
    "at_least_four",
    "check_arguments",
    "check_budget",
    "check_gauss_newton",
    "check_processes",
    "default_init",
    "resolve_family",
    "sample_shape",
    "step_weights",
]

#: Default numbers of iterations.
ITERATIONS = {"gauss_newton": 40, "adam": 1500}


def resolve_family(family: str | Family, nfe: int, init: str | Solver | None, field: Field) -> Family:
    """The family of a name, with solvers of ``nfe`` calls; with ``init="auto"`` as long as none is chosen."""
    if isinstance(nfe, bool) or not isinstance(nfe, int) or nfe < 1:
        raise ValueError(f"fit: nfe must be a whole number of at least 1, not {nfe!r}.")
    if isinstance(family, Family):
        if family.nfe != nfe:
            raise ValueError(f"fit: nfe={nfe}, but the family given makes solvers of {family.nfe} calls.")
        if init is not None:
            raise ValueError("fit: a Family starts from its own solver; leave init out.")
        return family
    if family == "non_stationary":
        return _non_stationary(nfe, init, field)
    if family == "timesteps":
        return _timesteps(nfe, init, field)
    if family not in ("scale_time", "scale_time_rk1"):
        raise ValueError(
            "fit: family must be 'non_stationary', 'timesteps', 'scale_time', 'scale_time_rk1' or a Family, "
            f"not {family!r}."
        )
    if init is not None:
        raise ValueError(f"fit: family={family!r} starts from its own base solver; leave init out.")
    if family == "scale_time_rk1":
        return ScaleTime("euler", nfe)
    if nfe % 2:
        raise ValueError(
            f"fit: family='scale_time' makes two calls a step, so nfe must be even, not {nfe}; take "
            f"{nfe + 1}, 'scale_time_rk1' or 'non_stationary'."
        )
    return ScaleTime("midpoint", nfe // 2)


def _non_stationary(nfe: int, init: str | Solver | None, field: Field) -> NonStationary:
    if not isinstance(init, Solver):
        return NonStationary(_classical(nfe, init, field, decoupled=True))
    if init.nfe != nfe:
        raise ValueError(f"fit: nfe={nfe}, but init {init.name!r} makes {init.nfe} calls.")
    return NonStationary(init, field.schedule)


def _timesteps(nfe: int, init: str | Solver | None, field: Field) -> Timesteps:
    if isinstance(init, Solver):
        raise ValueError(
            "fit: family='timesteps' moves the times of a classical solver, so init must name one, such as "
            f"'ab2', and not be the solver {init.name!r}."
        )
    family = _classical(nfe, init, field)
    if not family.size:
        raise ValueError(
            f"fit: family='timesteps' leaves nothing free where {family.base!r} makes one step of its {nfe} "
            "calls; raise nfe, or take 'non_stationary'."
        )
    return family


def _classical(nfe: int, name: str | None, field: Field, *, decoupled: bool = False) -> Timesteps:
    if name is None or name == "auto":
        name = default_init(nfe, field)
    try:
        return Timesteps(name, nfe, field.schedule, decoupled=decoupled)
    except ValueError as error:
        raise ValueError(f"fit: init cannot be {name!r}; {error}") from None


def default_init(nfe: int, field: Field) -> str:
    """DEIS of order 3, or where that has no table of velocities under the schedule, Adams-Bashforth 2.

    With its times free and decoupled, DEIS on the cosine grid was the better start in 20 of 20 studies.
    """
    name = "deis3/cosine"
    return "ab2" if velocity_table(classical.named(name, nfe, field.schedule), field) is None else name


def step_weights(loss: str, family: Family) -> Callable[[Tensor], Tensor]:
    """The weights ``M(theta)`` of the steps in a path loss, if the family can have that loss."""
    start = torch.zeros(family.size, dtype=torch.float64)
    if loss == "local":
        check_one_step(family.table(start), family.points)
        return lambda theta: torch.ones(len(family.points) - 1, dtype=theta.dtype)
    if not isinstance(family, ScaleTime):
        raise ValueError(
            "fit: loss='bound' is known for scale-time solvers only; use family='scale_time', or loss='rmse'."
        )
    bound_weights(family, start)  # raises for a base whose bound is unknown
    return partial(bound_weights, family)


def sample_shape(field: Field, shape: Sequence[int] | None) -> tuple[int, ...]:
    """The shape of one sample, as the caller or the field says."""
    if shape is None and field.shape is None:
        raise ValueError(
            "fit: to draw noise the shape of one sample must be known; pass shape=(channels, height, width), "
            "give it to the Field, or pass pairs=fewstep.reference.pairs(field, x0)."
        )
    return tuple(shape) if shape is not None else field.shape or ()


def at_least_four(count: int) -> int:
    """The number of pairs, if it is enough to split."""
    if count < 4:
        raise ValueError(f"fit: needs at least 4 pairs, two of them for validation, not {count}.")
    return count


def check_arguments(optimizer: str, loss: str, validation: float, iterations: int | None) -> None:
    """Raise for names that do not exist or do not go together."""
    if optimizer not in ITERATIONS:
        raise ValueError(f"fit: optimizer must be one of {', '.join(ITERATIONS)}, not {optimizer!r}.")
    if loss not in (*ENDPOINT_LOSSES, *PATH_LOSSES):
        known = ", ".join((*ENDPOINT_LOSSES, *PATH_LOSSES))
        raise ValueError(f"fit: loss must be one of {known}, not {loss!r}.")
    if loss in PATH_LOSSES and optimizer != "adam":
        raise ValueError(f"fit: loss={loss!r} needs gradients through the network; pass optimizer='adam'.")
    if not 0 < validation < 1:
        raise ValueError(f"fit: validation must lie between 0 and 1, not {validation!r}.")
    if iterations is not None and iterations < 1:
        raise ValueError(f"fit: iterations must be at least 1, not {iterations!r}.")


def check_gauss_newton(optimizer: str, jacobian: str, minibatch: int | None) -> None:
    """Raise for what only Gauss-Newton knows, when another optimizer is asked for."""
    if optimizer != "gauss_newton" and (jacobian, minibatch) != ("directions", None):
        raise ValueError(
            f"fit: jacobian={jacobian!r} and minibatch={minibatch} are Gauss-Newton's; leave them out, or "
            "pass optimizer='gauss_newton'."
        )


def check_processes(optimizer: str) -> None:
    """Raise where several processes would all do the same work."""
    world = Team.current().world
    if world > 1 and optimizer != "gauss_newton":
        raise ValueError(
            f"fit: optimizer={optimizer!r} cannot share its work among {world} processes; run it in one, or "
            "pass optimizer='gauss_newton'."
        )


def check_budget(max_calls: int, reference: int, start: int) -> int:
    """The calls left to the optimiser, which must do for looking at the initial solver at least."""
    if reference + start > max_calls:
        raise ValueError(
            f"fit: max_calls={max_calls} is not enough: the reference took {reference} network calls and the "
            f"initial solver takes {start} more; raise max_calls well above {reference + start}, or fit on "
            "fewer pairs."
        )
    return max_calls - reference
