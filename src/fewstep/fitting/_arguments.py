"""Reading the arguments of a fit, with a clear word where they do not fit together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from .. import classical
from ..families import Family, Following, NonStationary, ScaleTime, Timesteps, refined
from ..families.scale_time import BASES
from ..field import Field
from ..solver import Solver
from ._rivals import velocity_table
from ._team import Team
from .losses import LOSSES, LeastSquares, Loss, bound_weights, check_one_step

__all__ = [
    "at_least_four",
    "check_arguments",
    "check_budget",
    "check_gauss_newton",
    "check_processes",
    "default_init",
    "resolve_family",
    "resolve_loss",
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
    return _scale_time(family, nfe, init)


def _scale_time(family: str, nfe: int, init: str | Solver | None) -> ScaleTime:
    if family == "scale_time_rk1":
        if init is not None:
            raise ValueError(
                "fit: family='scale_time_rk1' is 'scale_time' with init='euler'; leave init out, or use that."
            )
        init = "euler"
    base = "midpoint" if init is None else init
    if not isinstance(base, str) or base not in BASES:
        given = repr(base) if isinstance(base, str) else f"the solver {base.name!r}"
        raise ValueError(
            "fit: family='scale_time' steps with a base method on times of its own, so init must be one of "
            f"{', '.join(BASES)}, not {given}."
        )
    stages = BASES[base](1).nfe
    if nfe % stages:
        raise ValueError(
            f"fit: family='scale_time' on {base!r} makes {stages} calls a step, so nfe must be "
            f"{'even' if stages == 2 else f'a multiple of {stages}'}, not {nfe}; take {nfe + -nfe % stages}, "
            "'scale_time_rk1' or 'non_stationary', or init='ab2'."
        )
    return ScaleTime(base, nfe // stages)


def _non_stationary(nfe: int, init: str | Solver | None, field: Field) -> NonStationary:
    if not isinstance(init, Solver):
        return NonStationary(_classical(nfe, init, field, decoupled=True))
    if init.nfe > nfe:
        raise ValueError(
            f"fit: nfe={nfe}, but init {init.name!r} makes {init.nfe} calls; it may make fewer, but not more."
        )
    start = refined(init, nfe, field.schedule)
    try:
        return NonStationary(Following(start, field.schedule))
    except ValueError:  # calls at one time, as Heun's: the coefficients stay while the times move
        return NonStationary(start, field.schedule)


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


def resolve_loss(loss: str | Loss, optimizer: str) -> Loss:
    """The loss of a name, if the optimiser can lower it."""
    if not isinstance(loss, Loss):
        if loss not in LOSSES:
            raise ValueError(f"fit: loss must be one of {', '.join(LOSSES)}, or a Loss, not {loss!r}.")
        loss = LOSSES[loss]
    if optimizer == "gauss_newton" and not isinstance(loss, LeastSquares):
        raise ValueError(
            f"fit: loss={loss.name!r} needs gradients through the network; pass optimizer='adam'."
        )
    return loss


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


def check_arguments(optimizer: str, validation: float, iterations: int | None) -> None:
    """Raise for names that do not exist or do not go together."""
    if optimizer not in ITERATIONS:
        raise ValueError(f"fit: optimizer must be one of {', '.join(ITERATIONS)}, not {optimizer!r}.")
    if not 0 < validation < 1:
        raise ValueError(f"fit: validation must lie between 0 and 1, not {validation!r}.")
    if iterations is not None and iterations < 1:
        raise ValueError(f"fit: iterations must be at least 1, not {iterations!r}.")


def check_gauss_newton(optimizer: str, jacobian: str | None, minibatch: int | None) -> None:
    """Raise for what only Gauss-Newton knows, when another optimizer is asked for."""
    if optimizer != "gauss_newton" and (jacobian, minibatch) != (None, None):
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
