"""Arguments of a fit: fields, numbers of calls, guidance scales, and the solvers for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

from torch import nn

from .._names import check_name
from ..families import FAMILIES, Family, Guided, NonStationary, SmoothCorrections, Solvers
from ..field import Field, check_field
from ..solver import Solver
from ._settings import GaussNewton, Optimizer, resolve_optimizer
from ._team import Team
from .losses import LOSSES, EndpointLoss, Features, LeastSquares, Loss, Steps

__all__ = ["Fields", "Question", "Source", "ask"]

#: A field, a function from the guidance scale to a field, or several fields.
Fields = Field | Callable[[float], Field] | Sequence[Field]


class Source(NamedTuple):
    """A field, with its guidance scale if several are fitted, and its name if several fields are."""

    field: Field
    guidance: float | None = None
    model: str | None = None


class Question(NamedTuple):
    """The arguments of a fit, resolved and checked.

    Args:
        sources: the fields, at each scale.
        between: the fields at scales for validation.
        nfes: numbers of calls.
        solvers: the solvers with a common theta.
        loss: the loss.
        optimizer: settings of the optimiser.
        open: whether their start is to be chosen among classical solvers.
    """

    sources: list[Source]
    between: list[Source]
    nfes: tuple[int, ...]
    solvers: Family | SmoothCorrections | Guided
    loss: Loss
    optimizer: Optimizer
    open: bool = False

    @property
    def alone(self) -> bool:
        """True for one solver of one field."""
        return len(self.sources) == len(self.nfes) == 1

    @property
    def contested(self) -> bool:
        """True if a few iterations can tell which of several starts is the best."""
        return isinstance(self.optimizer, GaussNewton) and self.optimizer.minibatch is None

    @property
    def family(self) -> Family:
        """The family of the only number of calls and scale."""
        return self.solvers.member(self.nfes[0]).own

    @property
    def midway(self) -> list[int]:
        """Numbers of calls midway between fitted ones, rounded down to those that the base can make."""
        stages = getattr(self.curves, "stages", 1)
        pairs = zip(self.nfes, self.nfes[1:], strict=False)
        return sorted({(low + high) // 2 // stages * stages for low, high in pairs} - set(self.nfes))

    @property
    def curves(self) -> Solvers:
        """The solvers at one guidance scale."""
        return self.solvers.solvers if isinstance(self.solvers, Guided) else self.solvers


def ask(
    field: Fields,
    nfe: int | Sequence[int],
    guidance: float | Sequence[float] | None,
    family: str | Solvers | None,
    init: str | Solver | None,
    loss: str | Loss,
    optimizer: str | Optimizer,
) -> Question:
    """Resolve and check the arguments of a fit."""
    nfes, scales = _nfes(nfe), _scales(guidance)
    sources = _sources(field, scales)
    optimizer = resolve_optimizer(optimizer)
    loss = _loss(loss, optimizer)
    solvers = _solvers(family, nfes, scales, init, sources[-1].field)
    between: list[Source] = []
    if len(scales) > 1:
        middles = [(low + high) / 2 for low, high in zip(scales, scales[1:], strict=False)]
        between = _sources(field, middles)
    else:
        sources = [source._replace(guidance=None) for source in sources]
    question = Question(sources, between, nfes, solvers, loss, optimizer)
    by_name = family is None or family in ("non_stationary", "timesteps")
    chosen = init == "auto" or (init is None and question.contested)
    question = question._replace(open=question.alone and by_name and chosen)
    _check_together(question, init)
    return question


def _nfes(nfe: int | Sequence[int]) -> tuple[int, ...]:
    numbers = tuple(nfe) if isinstance(nfe, Iterable) and not isinstance(nfe, str) else (nfe,)
    whole = [isinstance(n, Integral) and not isinstance(n, bool) and n >= 1 for n in numbers]
    if not numbers or not all(whole) or len(set(numbers)) < len(numbers):
        raise ValueError(
            "fit: nfe must be a whole number of at least 1, or different ones such as (4, 6, 8), "
            f"not {nfe!r}."
        )
    return tuple(sorted(map(int, numbers)))


def _scales(guidance: float | Sequence[float] | None) -> tuple[float, ...]:
    if guidance is None:
        return ()
    scales = tuple(guidance) if isinstance(guidance, Iterable) else (guidance,)
    numbers = all(isinstance(w, Real) and not isinstance(w, bool) and 0 < w < math.inf for w in scales)
    if not scales or not numbers or len(set(scales)) < len(scales):
        raise ValueError(
            f"fit: guidance must be a scale above 0, or different ones such as (1, 2, 5), not {guidance!r}."
        )
    return tuple(sorted(float(w) for w in scales))


def _sources(field: Fields, scales: Sequence[float]) -> list[Source]:
    """Return each field at each scale, named if there are several fields."""
    several = list(field) if isinstance(field, list | tuple) else [field]
    if not several:
        raise ValueError("fit: field is an empty list; pass a Field, or several of them.")
    names = [getattr(one, "name", "") for one in several]
    if len(set(names)) < len(names):
        names = [f"{name} {number}" for number, name in enumerate(names, start=1)]
    return [
        Source(_at_scale(one, w), w, name if len(several) > 1 else None)
        for one, name in zip(several, names, strict=True)
        for w in scales or (None,)
    ]


def _at_scale(field: Any, w: float | None) -> Field:
    """Return a field at a scale, by its own guidance or by a function of the scale."""
    if isinstance(field, Field):
        return field if w is None else field.with_guidance(w)
    if w is not None and callable(field) and not isinstance(field, nn.Module):
        made = field(w)
        return check_field(made, "fit")
    return check_field(field, "fit")


def _loss(loss: str | Loss, optimizer: Optimizer) -> Loss:
    """Return the loss by name, if the optimiser can minimise it."""
    if not isinstance(loss, Loss):
        check_name("fit: loss", loss, LOSSES, ", or a Loss")
        loss = LOSSES[loss]
    if isinstance(optimizer, GaussNewton) and not isinstance(loss, LeastSquares):
        raise ValueError(
            f"fit: loss={loss.name!r} needs gradients through the network; pass optimizer='adam'."
        )
    return loss


def _solvers(
    family: str | Solvers | None,
    nfes: tuple[int, ...],
    scales: tuple[float, ...],
    init: str | Solver | None,
    field: Field,
) -> Family | SmoothCorrections | Guided:
    """Return the solvers by name, or the given ones, at every scale."""
    if family is None:
        family = "non_stationary" if len(nfes) == 1 else "smooth_corrections"
    solvers: Family | SmoothCorrections | Guided
    if not isinstance(family, Family | SmoothCorrections | Guided):
        make = FAMILIES[check_name("fit: family", family, FAMILIES, ", or a Family")]
        solvers = make(nfes, init, field)
    elif init is not None:
        raise ValueError("fit: a Family starts from its own solver; leave init out.")
    else:
        solvers = family
    if isinstance(solvers, Family) and nfes != (solvers.nfe,):
        raise ValueError(
            f"fit: nfe={nfes[0] if len(nfes) == 1 else nfes}, but the family given makes solvers of "
            f"{solvers.nfe} calls."
        )
    if len(scales) < 2 or isinstance(solvers, Guided):
        return solvers
    if not isinstance(solvers, NonStationary | SmoothCorrections) or isinstance(init, Solver):
        given = f"the solver {init.name!r}" if isinstance(init, Solver) else init or "its own start"
        raise ValueError(
            "fit: several guidance scales are fitted by family='non_stationary' or "
            f"'smooth_corrections' from a classical solver by name, not by {solvers.name!r} from {given}."
        )
    return Guided(solvers, scales[0], scales[-1], 2)


def _check_together(question: Question, init: str | Solver | None) -> None:
    """Raise for arguments that do not go together, before any network call."""
    optimizer, loss = question.optimizer, question.loss
    for n in question.nfes:
        for source in (*question.sources, *question.between):
            question.solvers.member(n, source.guidance)  # raises if there is none
    world = Team.current().world
    if world > 1 and not isinstance(optimizer, GaussNewton):
        raise ValueError(
            f"fit: optimizer={optimizer.name!r} cannot share its work among {world} processes; run it in "
            "one, or pass optimizer='gauss_newton'."
        )
    if len(question.nfes) == 1 and isinstance(question.solvers, Family) and isinstance(loss, Steps):
        loss.weights(question.family)  # raises if there are none
    if init == "auto" and not isinstance(question.solvers, Family):
        raise ValueError(
            "fit: init='auto' starts one number of calls at one guidance scale; name a classical solver, or "
            "leave it out."
        )
    if question.alone:
        return
    if not isinstance(optimizer, GaussNewton):
        raise ValueError(
            f"fit: optimizer={optimizer.name!r} fits one solver of one field; pass optimizer='gauss_newton'."
        )
    if not isinstance(loss, EndpointLoss | Features) or getattr(loss, "loss", loss).name == "log_mse":
        raise ValueError(
            "fit: several solvers, scales or fields share the mean logarithm of their losses, which must be "
            f"'rmse', 'mse', 'pseudo_huber' or Features, not {loss.name!r}."
        )
