"""Fields from torchcfm's networks, which take the time first."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..field import Field
from ..schedules import CondOT, Schedule
from ._network import Network, adapted_field

__all__ = ["field"]


def field(net: Network, *, schedule: Schedule | None = None, **options: Any) -> Field:
    """Return the field of ``net(t, x, **conditions) -> velocity``, trained from noise ``x0`` to data ``x1``.

    torchcfm's time is ours, 0 for noise and 1 for data; only the order of the arguments differs. ``t`` has
    shape ``(B,)``, as in training, or ``()`` with ``time_shape="scalar"``, as where torchdyn integrates.

    Args:
        net: the network.
        schedule: the path: by default ``CondOT()``, for the straight paths of every flow matcher but
            ``VariancePreservingConditionalFlowMatcher``, whose path is ``Cosine()``.
        **options: options of :class:`~fewstep.Field`.
    """
    return adapted_field(net, _time_first, CondOT() if schedule is None else schedule, "velocity", **options)


def _time_first(net: Network, x: Tensor, time: Tensor, **conditions: Any) -> Tensor:
    velocity: Tensor = net(time, x, **conditions)
    return velocity
