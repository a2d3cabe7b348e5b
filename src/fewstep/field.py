"""The right-hand side of the sampling ODE: a network, what it predicts, and its schedule."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ._hashing import fingerprint
from ._predictions import Prediction, check_prediction, conversion
from .schedules import CondOT, Schedule

__all__ = ["Field"]

#: Where a data (or noise) prediction leaves the velocity undefined, at the very end (or start) of
#: time, the velocity is taken this much inside.
END_MARGIN = 1e-5


class Field:
    """The velocity ``u(x, t) = A(t) x + B(t) model(x, t)`` whose flow turns noise into data.

    ``A`` and ``B`` follow from the schedule and from what the network predicts. Guidance is part of
    the field, applied at every call: ``m = m_uncond + scale (m_cond - m_uncond)``, where ``m_cond``
    is the network given the caller's conditions and ``m_uncond`` the network given the conditions
    with those of ``unconditional`` put in their place (Ho and Salimans 2022; scale 1 is no guidance).

    Args:
        model: any callable ``model(x, t, **conditions) -> Tensor`` like ``x``.
        schedule: the noise schedule the model was trained with.
        prediction: ``"velocity"``, ``"noise"`` (epsilon), ``"data"`` (x1) or ``"v"``.
        shape: shape of one sample without the batch dimension, where it is known; fitting then
            needs no other hint of what noise to draw.
        time: ``"batch"`` hands the network its time as a tensor of shape ``(B,)``, ``"scalar"`` as
            one of shape ``()``.
        guidance: guidance scale; ``None`` or 1 calls the network once.
        unconditional: keyword arguments that replace the caller's for the unconditional half.
        data_moments: mean and standard deviation of the data, where the noise end of the schedule still
            carries signal (``alpha(0) > 0``): sampling then starts from the Gaussian with those moments.
        name: what provenance records and caches know the model by; needed for caching when
            ``model`` is not a ``torch.nn.Module``.

    Shape:
        ``field(x, t)``: ``x`` is ``(B, ...)`` of any dimension, ``t`` a number, or a tensor of shape
        ``()`` or ``(B,)``, in [0, 1]; the velocity is like ``x``.

    Raises:
        ValueError: on an unknown prediction or time, or guidance with nothing to guide away from.
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        schedule: Schedule | None = None,
        prediction: Prediction = "velocity",
        *,
        shape: tuple[int, ...] | None = None,
        time: Literal["batch", "scalar"] = "batch",
        guidance: float | None = None,
        unconditional: Mapping[str, Any] | None = None,
        data_moments: tuple[float, float] | None = None,
        name: str | None = None,
    ) -> None:
        check_prediction(prediction)
        if time not in ("batch", "scalar"):
            raise ValueError(f"Field: time must be 'batch' or 'scalar', not {time!r}.")
        if guidance not in (None, 1) and unconditional is None:
            raise ValueError(
                f"Field: guidance={guidance} needs unconditional={{...}}, the keyword arguments "
                "that make the network unconditional."
            )
        if not callable(model):
            raise ValueError(f"Field: model must be callable as model(x, t), not {type(model).__name__}.")
        if isinstance(model, nn.Module) and model.training:
            warnings.warn(
                f"Field: {type(model).__name__} is in training mode, so dropout and batch "
                "statistics disturb the ODE; call model.eval() first.",
                stacklevel=2,
            )
        self.model = model
        self.schedule = CondOT() if schedule is None else schedule
        self.prediction: Prediction = prediction
        self.shape = None if shape is None else tuple(shape)
        self.time = time
        self.guidance = None if guidance == 1 else guidance
        self.unconditional = dict(unconditional or {})
        self.data_moments = data_moments
        self.name = name or type(model).__name__
        self._named = name is not None

    @property
    def forwards_per_call(self) -> int:
        """Network forwards in one call of the field: two under guidance, else one."""
        return 1 if self.guidance is None else 2

    def __call__(self, x: Tensor, t: Tensor | float, **conditions: Any) -> Tensor:
        """The velocity ``dx/dt`` at ``x`` and ``t``."""
        if self.prediction == "velocity":
            return self.predict(x, t, **conditions)
        t = torch.as_tensor(t, dtype=torch.float64, device=x.device)
        t = t.clamp(END_MARGIN, 1 - END_MARGIN)
        A, B = conversion(self.schedule(t), "velocity", self.prediction)
        A, B = (c.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1)) for c in (A, B))
        return A * x + B * self.predict(x, t, **conditions)

    def predict(self, x: Tensor, t: Tensor | float, **conditions: Any) -> Tensor:
        """What the network predicts at ``x`` and ``t``, guidance included.

        Raises:
            ValueError: when the network's output is not shaped like ``x``.
        """
        time = self._network_time(t, x)
        m = self._forward(x, time, conditions)
        if self.guidance is None:
            return m
        m_uncond = self._forward(x, time, {**conditions, **self.unconditional})
        return m_uncond + self.guidance * (m - m_uncond)

    def initial_state(self, noise: Tensor) -> Tensor:
        """The state at ``t = 0`` made of standard normal noise: ``sigma(0) * noise``.

        Given ``data_moments = (mean, std)``, it is the Gaussian of ``x_0``'s own mean and variance,
        ``alpha(0) mean + sqrt(sigma(0)^2 + alpha(0)^2 std^2) * noise``.
        """
        alpha, sigma = (float(c) for c in self.schedule(0.0)[:2])
        mean, std = self.data_moments or (0.0, 0.0)
        scale = math.hypot(sigma, alpha * std)
        return noise if (scale, alpha * mean) == (1, 0) else alpha * mean + scale * noise

    def describe(self) -> dict[str, Any]:
        """JSON-ready facts that identify this field in a solver file or a cache."""
        return {
            "model": self.name,
            "prediction": self.prediction,
            "schedule": self.schedule.to_dict(),
            "guidance": self.guidance,
            "shape": None if self.shape is None else list(self.shape),
        }

    def fingerprint(self) -> str:
        """A hash of all that decides the samples: description, initial state, guidance and weights.

        Raises:
            ValueError: when the model has no weights to hash and no name to stand for it.
        """
        weights = self.model.state_dict() if isinstance(self.model, nn.Module) else {}
        if not isinstance(self.model, nn.Module) and not self._named:
            raise ValueError(
                "Field: a cache cannot tell one plain function from another; pass Field(..., name='...') "
                "with a name that changes when the model does."
            )
        return fingerprint([self.describe(), self.unconditional, self.data_moments, weights])

    def __repr__(self) -> str:
        guided = "" if self.guidance is None else f", guidance={self.guidance}"
        return f"Field({self.name}, {self.schedule!r}, prediction={self.prediction!r}{guided})"

    def _network_time(self, t: Tensor | float, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)  # half precision is too coarse for time
        if not isinstance(t, Tensor):
            return torch.full((x.shape[0],) if self.time == "batch" else (), t, dtype=dtype, device=x.device)
        t = t.to(device=x.device, dtype=dtype)
        return t.expand(x.shape[0]) if self.time == "batch" else t

    def _forward(self, x: Tensor, t: Tensor, conditions: Mapping[str, Any]) -> Tensor:
        m = self.model(x, t, **conditions)
        if not isinstance(m, Tensor) or m.shape != x.shape:
            got = f"shape {tuple(m.shape)}" if isinstance(m, Tensor) else f"a {type(m).__name__}"
            raise ValueError(
                f"Field: the network returned {got} for a state of shape {tuple(x.shape)}; wrap it so "
                "that model(x, t) returns one tensor like x."
            )
        return m
