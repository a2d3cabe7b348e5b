"""Our solvers with the signature of flow_matching's ``ODESolver``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._path import check_noise
from ..field import Field
from ..solver import Solver

__all__ = ["BaseODESolver"]

#: Largest difference of times that are taken as one; a grid in float32 rounds them.
_SAME = 1e-6


class BaseODESolver(nn.Module):
    """Samples a field; see :class:`fewstep.adapters.flow_matching.ODESolver`."""

    def __init__(self, velocity_model: Any, solver: Solver, field: Field) -> None:
        super().__init__()
        self.velocity_model = velocity_model
        self.solver = solver
        self.field = field
        self.training = getattr(velocity_model, "training", False)

    def sample(
        self,
        x_init: Tensor,
        step_size: float | None = None,
        method: str | None = None,
        atol: float | None = None,
        rtol: float | None = None,
        time_grid: Tensor | Sequence[float] | None = None,
        return_intermediates: bool = False,
        enable_grad: bool = False,
        **model_extras: Any,
    ) -> Tensor:
        """Return the samples that the solver reaches from ``x_init``, with its own steps.

        Args:
            x_init: states at ``t = 0``, ``(B, ...)``, standard normal noise as there.
            step_size: must be ``None``; the solver has its own steps.
            method: must be ``None`` or the solver's name.
            atol: ignored, as by all methods of fixed steps.
            rtol: likewise.
            time_grid: times of the states to return, ``[0, 1]`` or others among ``solver.point_times`` with
                these ends; all of ``point_times`` by default.
            return_intermediates: return the states at these times, ``(T, B, ...)``, instead of the samples.
            enable_grad: let gradients flow to ``x_init`` and the model.
            **model_extras: keyword arguments of the model.

        Raises:
            ValueError: when ``step_size``, ``method`` or ``time_grid`` ask for other steps than the solver's.
        """
        del atol, rtol
        self._check(step_size, method)
        wanted = self._points(time_grid)
        check_noise(x_init, "x_init")
        with torch.set_grad_enabled(enable_grad):
            noise = self.field.initial_noise(x_init)
            if not return_intermediates:
                x1: Tensor = self.solver.sample(self.field, noise, differentiable=enable_grad, **model_extras)
                return x1.to(x_init.dtype)
            path = self.solver.sample(
                self.field, noise, trajectory=True, differentiable=enable_grad, **model_extras
            )
            states: Tensor = path.states[wanted]
            return states.to(x_init.dtype)

    def _check(self, step_size: float | None, method: str | None) -> None:
        if step_size is not None:
            raise ValueError(
                f"ODESolver: step_size must be None, not {step_size}, as {self.solver.name!r} has its own "
                f"{self.solver.nfe} calls; leave it out, or build a solver with other steps."
            )
        if method not in (None, self.solver.name):
            raise ValueError(
                f"ODESolver: method must be None, not {method!r}, as this is solver {self.solver.name!r}; "
                "leave it out, or pass another solver to ODESolver."
            )

    def _points(self, time_grid: Tensor | Sequence[float] | None) -> list[int]:
        """Return the indices of the trajectory points at the times of a grid."""
        own = self.solver.point_times
        if time_grid is None:
            return list(range(len(own)))
        try:
            given = torch.as_tensor(time_grid, dtype=torch.float64).flatten().tolist()
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(f"ODESolver: time_grid must be times from 0 to 1, not {time_grid!r}.") from None
        # Some solvers end shortly before 1, and their samples are used as those at 1.
        ends = len(given) > 1 and all(
            min(abs(t - end), abs(t - at)) < _SAME
            for t, end, at in ((given[0], 0, own[0]), (given[-1], 1, own[-1]))
        )
        found = [[i for i, at in enumerate(own) if abs(t - at) < _SAME] for t in given[1:-1]] if ends else []
        if not ends or not all(found) or given != sorted(given):
            times = ", ".join(f"{t:.6g}" for t in own)
            raise ValueError(
                f"ODESolver: time_grid must be [0, 1], or some of the times {times} of {self.solver.name!r} "
                f"from the first to the last, not {[round(t, 6) for t in given]}; leave it out, or build a "
                "solver with that grid."
            )
        return [0, *(places[0] for places in found), len(own) - 1]
