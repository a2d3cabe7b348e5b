"""The facts that identify a field in files and caches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from ._clock import Clock, describe_clock
from ._conditions import Bound
from ._files import plain_name
from ._fitted_guidance import fitted_guidance
from ._hashing import fingerprint
from ._network import bare
from ._predictions import Prediction
from .schedules import Schedule

__all__ = ["Identity"]


class Identity:
    """Description and fingerprint of a field; see :class:`fewstep.Field`."""

    model: Callable[..., Tensor]
    schedule: Schedule
    prediction: Prediction
    shape: tuple[int, ...] | None
    clock: Clock
    guidance: float | None
    unconditional: Mapping[str, Any]
    guide: Callable[..., Tensor] | None
    guidance_interval: tuple[float, float]
    guidance_rescale: float | str
    data_moments: tuple[float | Tensor, float | Tensor] | None
    name: str
    _named: bool
    _bound: Bound | None

    def describe(self) -> dict[str, Any]:
        """Return JSON-ready facts that identify this field in a solver file or a cache."""
        guided = {} if self.guidance is None else {
            "guidance_interval": list(self.guidance_interval),
            "guide": None if self.guide is None else type(bare(self.guide)).__name__,
            **({"guidance_rescale": self.guidance_rescale} if self.guidance_rescale else {}),
        }  # fmt: skip
        return {
            "model": self.name,
            **({} if self._named else {"named": False}),
            "prediction": self.prediction,
            "schedule": self.schedule.to_dict(),
            "clock": describe_clock(self.clock),
            "guidance": self.guidance,
            **guided,
            "shape": None if self.shape is None else list(self.shape),
        }

    @property
    def identifiable(self) -> bool:
        """True if a cache can identify the model, by its weights or by a name."""
        return self._named or isinstance(self.model, nn.Module)

    def fingerprint(self) -> str:
        """Return a hash of everything that decides the samples: description, moments, conditions and weights.

        Raises:
            ValueError: when the model has neither weights to hash nor a name.
        """
        if not self.identifiable:
            raise ValueError(
                "Field: a cache cannot tell one plain function from another; pass Field(..., name='...') "
                "with a name that changes when the model does."
            )
        weights = [
            {plain_name(k): v for k, v in m.state_dict().items()} if isinstance(m, nn.Module) else {}
            for m in (self.model, self.guide)
        ]
        bound = [] if self._bound is None else [vars(self._bound)]
        return fingerprint([self.describe(), self.unconditional, self.data_moments, weights, *bound])

    def __repr__(self) -> str:
        guided = "".join(f", {key}={value!r}" for key, value in fitted_guidance(self.describe()).items())
        return f"Field({self.name}, {self.schedule!r}, prediction={self.prediction!r}{guided})"
