"""Fields from torchcfm's networks, which take the time first, or in one tensor with the state."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from ..field import Field
from ..schedules import CondOT, Schedule
from ._network import Network, adapted_field

__all__ = ["field"]


def field(
    net: Network, *, schedule: Schedule | None = None, concatenated: bool = False, **options: Any
) -> Field:
    """Return the field of ``net(t, x, **conditions) -> velocity``, trained from noise ``x0`` to data ``x1``.

    torchcfm's time is ours, 0 for noise and 1 for data; only the order of the arguments differs. ``t`` has
    shape ``(B,)``, as in training, or ``()`` with ``time_shape="scalar"``, as where torchdyn integrates: the
    default for its ``torch_wrapper``, which takes no other.

    Args:
        net: the network.
        schedule: the path: by default ``CondOT()``, for the straight paths of every flow matcher but
            ``VariancePreservingConditionalFlowMatcher``, whose path is ``Cosine()``.
        concatenated: call ``net(torch.cat([x, t[:, None]], 1), **conditions)``, as for torchcfm's ``MLP``
            with ``time_varying=True``; the states are of shape ``(B, D)``.
        **options: options of :class:`~fewstep.Field`.

    Raises:
        ValueError: when ``net`` does not take two arguments, and is not said to take them concatenated.
    """
    for network in (net, options.get("guide")):
        if not (network is None or concatenated):
            _check_call(network)
    if type(net).__name__ == "torch_wrapper":
        options.setdefault("time_shape", "scalar")
    call = _in_one if concatenated else _time_first
    return adapted_field(net, call, CondOT() if schedule is None else schedule, "velocity", **options)


def _time_first(net: Network, x: Tensor, time: Tensor, **conditions: Any) -> Tensor:
    velocity: Tensor = net(time, x, **conditions)
    return velocity


def _in_one(net: Network, x: Tensor, time: Tensor, **conditions: Any) -> Tensor:
    if x.ndim != 2:
        raise ValueError(
            "torchcfm: a network of cat([x, t[:, None]], 1) takes states of shape (B, D), not "
            f"{tuple(x.shape)}; flatten them, or leave concatenated out for one that is called as net(t, x)."
        )
    velocity: Tensor = net(torch.cat([x, time.expand(len(x))[:, None].to(x.dtype)], 1), **conditions)
    return velocity


def _check_call(net: Network) -> None:
    """Raise a ``ValueError`` if a network does not take a time and a state."""
    try:
        signature = inspect.signature(net.forward if isinstance(net, nn.Module) else net)
    except (TypeError, ValueError):  # not callable, which the field says, or without a signature
        return
    try:
        signature.bind_partial("t", "x")
    except TypeError:
        raise ValueError(
            f"torchcfm: {type(net).__name__}{signature} cannot be called as net(t, x); pass "
            "concatenated=True, if it takes cat([x, t[:, None]], 1), as torchcfm's MLP does, or wrap it in a "
            "function of t and x."
        ) from None
