"""One step of a solver per network call, for frameworks that call the network themselves.

At call ``j`` the framework hands over the network's prediction ``m_j`` at the state ``x_j``. It is converted
to the prediction that the table reads, and the table's row makes the state of the next call:

    u_j = A_j x_j + B_j m_j,        x_{j+1} = sum_{k<=j} C[j,k] x_k + sum_{k<=j} D[j,k] u_k .

At an end of time where ``m_j`` leaves ``u_j`` undefined, the network is called a little inside, as by
:meth:`fewstep.Field.at`.

**Edits.** A framework may change ``x_j`` by ``e`` before the call (inpainting, callbacks). A row may read
earlier states instead, so that the change would be lost, in part or whole. With all predictions held fixed
the ODE ``dx/dt = A x + B u`` is linear, and a difference of two solutions grows like

    phi(t) = exp int A dt:    1 for velocities, sigma for data, alpha for noise, hypot(alpha, sigma) for v.

So the states of the trajectory through ``x_j + e`` are ``x_k + e phi(t_k) / phi(t_j)``, for every kept ``k``.

**Entering in the middle.** A state at a later call, such as a noised image, has no history, and inventing one
costs more accuracy than a solver that needs none: the calls that remain are made by DPM-Solver++ 2M, between
the times of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .._ends import finite_conversion
from .._execute import Correct, Row, advance, plan
from .._network import state_type
from .._predictions import Prediction
from .._table import Rows, lower_triangle
from ..classical import dpmpp
from ..lifted import Lifted
from ..schedules import Schedule
from ..solver import Solver

__all__ = ["History", "Stepper"]


class History(NamedTuple):
    """What a sampling has reached: the next call, and the states and predictions that later rows read.

    No step changes it or a tensor in it: a sampling can be continued twice from the same one.
    """

    call: int
    states: Mapping[int, Tensor]
    predictions: Mapping[int, Tensor]


@dataclass(frozen=True)
class Stepper:
    """The steps of a table with the predictions of a network; immutable, for many samplings at once.

    Args:
        times: times of the ``N`` states at which the network is called, and of the sample.
        C: coefficients of the states.
        D: coefficients of the predictions.
        reads: the prediction that the table reads.
        given: the prediction of the network.
        schedule: the schedule of the network.
        preconditioned: whether ``given`` is the data prediction of a preconditioned denoiser.
        dtype: type of the network's predictions, which decides how near to an end of time it is called.
        correction: for a device, what is done to each state beyond its row, if the solver is lifted.
    """

    times: tuple[float, ...]
    C: Rows
    D: Rows
    reads: Prediction
    given: Prediction
    schedule: Schedule
    preconditioned: bool = False
    dtype: torch.dtype = torch.float32
    correction: Callable[[torch.device], Correct | None] | None = None

    @classmethod
    def of(cls, solver: Solver, prediction: Prediction, schedule: Schedule) -> Stepper:
        """Return the steps of a solver for networks of one prediction and schedule.

        Raises:
            ValueError: when the solver is for another schedule, or adds noise.
        """
        solver.check_ode("adapters")
        solver = solver.to(solver.prediction, schedule)  # checks the schedule
        times = (*solver.times, solver.end)
        lifted = solver.correction if isinstance(solver, Lifted) else None
        return cls(times, solver.C, solver.D, solver.prediction, prediction, schedule, correction=lifted)

    @property
    def nfe(self) -> int:
        """Number of network calls."""
        return len(self.C)

    @cached_property
    def called(self) -> tuple[float, ...]:
        """Times at which the network is called: those of the states, or a little inside [0, 1]."""
        return self._conversions[2]

    def begin(self, x: Tensor) -> History:
        """Return the history before the first call, at the state ``x``, ``(B, ...)``, which is copied."""
        return History(0, {0: x.to(state_type(x.dtype), copy=True)}, {})

    def step(
        self, history: History, prediction: Tensor, edited: Tensor | None = None
    ) -> tuple[History, Tensor]:
        """Make the step after a network call.

        Nothing here waits for the device. States are float32 at least, whatever the type of ``prediction``.

        Args:
            history: from :meth:`begin` or the step before.
            prediction: the network's, at the state of the history and time ``called[history.call]``.
            edited: the state at which the network was called, if it may have been changed since the step
                before, in any floating-point type; rounding to that type is no change.

        Returns:
            The next history, and the state at which the network is called next, or the samples. The state
            belongs to the history and must not be changed in place.

        Raises:
            ValueError: when all calls are made.
        """
        j = history.call
        if j >= self.nfe:
            raise ValueError(f"step: all {self.nfe} calls of the solver are made; begin with new noise.")
        states, predictions = dict(history.states), dict(history.predictions)
        if edited is not None:
            edit = edited.to(states[j].dtype) - states[j].to(edited.dtype).to(states[j].dtype)
            states = {k: x + self._growth(j, k) * edit for k, x in states.items()}
        A, B, _ = self._conversions
        predictions[j] = A[j] * states[j] + B[j] * prediction.to(states[j].dtype)
        advance(self._rows[j], j + 1, states, predictions)
        correct = self.correction and self.correction(states[j + 1].device)
        if correct:
            correct(j + 1, states, predictions)
        return History(j + 1, states, predictions), states[j + 1]

    @lru_cache(maxsize=64)  # noqa: B019, few are kept, and they are small
    def entered(self, call: int) -> Stepper:
        """Return the steps of the calls from ``call`` on, for a state without history: DPM-Solver++ 2M.

        The network is called at the times of those calls. Calls at a time that is reached already, as the
        stages of Heun's method are, add nothing: the state stays where it is.

        Args:
            call: index of the first call, 0 for all of this stepper's.
        """
        if call == 0:
            return self
        times = self.times[call:]
        grid, at = [times[0]], [0]  # distinct times, and the one that each call is made at
        for t in times[1:]:
            if t > grid[-1]:
                grid.append(t)
            at.append(len(grid) - 1)
        first = [at.index(point) for point in range(len(grid))]
        N = len(times) - 1
        C, D = torch.zeros(N, N, dtype=torch.float64), torch.zeros(N, N, dtype=torch.float64)
        inner = dpmpp("2M", grid=grid, schedule=self.schedule) if len(grid) > 1 else None
        for c, (here, there) in enumerate(zip(at[:-1], at[1:], strict=True)):
            if here == there or inner is None:
                C[c, c] = 1
                continue
            for point in range(there):
                C[c, first[point]], D[c, first[point]] = inner.C[here][point], inner.D[here][point]
        return replace(
            self, times=times, C=lower_triangle(C), D=lower_triangle(D), reads="data", correction=None
        )

    @cached_property
    def _rows(self) -> list[Row]:
        keep = self.correction is not None  # corrections read the first state and all predictions
        return plan(self.C, self.D, (0,) if keep else (), keep_predictions=keep)

    @cached_property
    def _conversions(self) -> tuple[tuple[float, ...], ...]:
        """``A`` and ``B`` of each call, and the time at which the network is called."""
        t = torch.tensor(self.times[:-1], dtype=torch.float64)
        found = finite_conversion(
            self.schedule,
            t,
            self.reads,
            self.given,
            self.dtype,
            mean_known=False,
            preconditioned=self.preconditioned,
        )
        return tuple(tuple(c.tolist()) for c in (found.A, found.B, found.times))

    @cached_property
    def _phi(self) -> list[float]:
        alpha, sigma = self.schedule(torch.tensor(self.times, dtype=torch.float64))[:2]
        phi = {"velocity": alpha.new_ones(len(alpha)), "data": sigma, "noise": alpha, "v": alpha.hypot(sigma)}
        return [float(c) for c in phi[self.reads]]

    def _growth(self, j: int, k: int) -> float:
        """Return ``phi(t_k) / phi(t_j)``."""
        if j == k:
            return 1.0
        # In pure data (or noise) the earlier states have no part in x_j, nor has an edit of it in them.
        return self._phi[k] / self._phi[j] if self._phi[j] > 0 else 0.0
