"""Calls of a network that may reuse its output, write into its input, or be of half precision."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar
from weakref import finalize

import torch
from torch import Tensor, nn

__all__ = ["bare", "call_network", "floating_type", "home", "in_own_type", "state_type"]

#: PyTorch's errors for tensors of two types.
_MIXED_TYPES = re.compile(r"dtype|scalar type|Input type|same type", re.IGNORECASE)

_Network = TypeVar("_Network")

#: Identities of networks of half precision that have refused a time in float32.
_OWN_TIME: set[int] = set()


def state_type(dtype: torch.dtype) -> torch.dtype:
    """Return the type of states for noise of type ``dtype``: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def bare(network: _Network) -> _Network:
    """Return the network that ``torch.compile`` wrapped, or the network itself."""
    found: _Network = getattr(network, "_orig_mod", network)
    return found


def floating_type(network: object) -> torch.dtype | None:
    """Return the type of the first floating-point parameter, ``None`` if there is none."""
    return _first_type(network) if isinstance(network, nn.Module) else None


def _first_type(module: nn.Module) -> torch.dtype | None:
    """Find the type without ``module.parameters()``, which takes ten times as long, at every call."""
    for parameter in module._parameters.values():
        if parameter is not None and parameter.dtype.is_floating_point:
            return parameter.dtype
    for child in module._modules.values():
        dtype = None if child is None else _first_type(child)
        if dtype is not None:
            return dtype
    return None


def _copied(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a copy with a type; ``x.to(dtype, copy=True)`` is slower if the type is the same."""
    return x.clone() if x.dtype == dtype else x.to(dtype)


def home(network: object) -> torch.device:
    """Return the device of the first parameter or buffer, the CPU if there is none."""
    if isinstance(network, nn.Module):
        for tensors in (network.parameters(), network.buffers()):
            for tensor in tensors:
                return tensor.device
    return torch.device("cpu")


def call_network(
    network: Callable[..., Tensor],
    x: Tensor,
    time: Callable[[torch.dtype], Tensor],
    conditions: Mapping[str, Any],
) -> Tensor:
    """Call a network on copies of state and time; return a copy of the output, float32 at least.

    Nothing here waits for the device. What ``torch.compile`` traces raises its own errors, and does not see
    that a network writes into conditions.

    Args:
        network: called as ``network(x, time, **conditions)``.
        x: states, ``(B, ...)``.
        time: returns a new tensor of the network's time in a given type.
        conditions: keyword arguments of the network.

    Raises:
        ValueError: when the output is not a floating-point tensor like ``x``.
    """
    if torch.compiler.is_compiling():
        m = in_own_type(network, x, time, conditions)
        _check_output(m, x)
        return _copied(m, state_type(x.dtype))
    before = [(name, value, value._version) for name, value in _tensors(conditions)]
    try:
        m = in_own_type(network, x, time, conditions)
    except Exception as error:
        # Checkpointing ends a recomputation by an error of its own.
        stopped = type(error).__module__ == "torch.utils.checkpoint"
        if not stopped:  # error.add_note(...), which Python 3.10 lacks; the command line prints it there, too
            vars(error).setdefault("__notes__", []).append(_described(x, time, conditions))
        raise
    for name, value, version in before:
        if value._version != version:
            raise ValueError(
                f"Field: the network wrote into its condition {name}, which every call gets; let it change a "
                "copy, as by .clone()."
            )
    _check_output(m, x)
    return _copied(m, state_type(x.dtype))


def in_own_type(
    network: Callable[..., Tensor],
    x: Tensor,
    time: Callable[[torch.dtype], Tensor],
    conditions: Mapping[str, Any],
) -> Tensor:
    """Call a network on a copy of the states in its own floating-point type.

    A module with ``casts_input`` gets them in float32 at least, as it computes with them before it passes
    them to an inner network. Time is float32 at least, except for networks that refuse tensors of two types.
    """
    wide = state_type(x.dtype)
    casts = getattr(type(network), "casts_input", False) and network.casts_input  # type: ignore[attr-defined]
    own = wide if casts else floating_type(network) or x.dtype
    fine = state_type(own)
    if own == fine or id(network) in _OWN_TIME:
        return network(_copied(x, own), time(own), **conditions)
    try:
        return network(_copied(x, own), time(fine), **conditions)
    except RuntimeError as error:
        if not _MIXED_TYPES.search(str(error)):
            raise
        refusal = error
    try:
        m = network(_copied(x, own), time(own), **conditions)
    except Exception:  # the time is not the reason
        raise refusal from None
    with suppress(TypeError):  # not every callable can be referred to weakly
        finalize(network, _OWN_TIME.discard, id(network)).atexit = False
        _OWN_TIME.add(id(network))
    return m


def _tensors(conditions: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors among conditions whose changes PyTorch counts."""
    for name, value in conditions.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", tensor) for inner, tensor in _tensors(value))
        elif isinstance(value, Tensor) and not value.is_inference():
            yield name, value


def _described(x: Tensor, time: Callable[[torch.dtype], Tensor], conditions: Mapping[str, Any]) -> str:
    """Describe the arguments of the network, for the note on its error."""
    try:
        t = time(torch.float32)
        times = sorted({f"{value:g}" for value in t.flatten().tolist()})
    except RuntimeError:  # a failed device cannot be read
        times = ["unknown"]
    told = ", ".join(times) if len(times) < 4 else f"{times[0]}, {times[1]}, ..."
    parts = [f"x {_shape(x)}", f"time {told}"]
    parts += [f"{name} {_shape(value)}" for name, value in conditions.items()]
    return f"In fewstep's call of the network with {'; '.join(parts)}."


def _shape(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} {_shape(inner)}" for name, inner in value.items()) + "}"
    shape = getattr(value, "shape", None)
    if shape is not None:
        place = f" on {value.device}" if isinstance(value, Tensor) else ""
        return f"of shape {tuple(shape)} and type {value.dtype}{place}".replace("torch.", "")
    return f"of {len(value)} rows" if isinstance(value, list | tuple) else f"= {value!r:.40}"


def _check_output(m: object, x: Tensor) -> None:
    if not isinstance(m, Tensor) or m.shape != x.shape:
        got = f"shape {tuple(m.shape)}" if isinstance(m, Tensor) else f"a {type(m).__name__}"
        raise ValueError(
            f"Field: the network returned {got} for a state of shape {tuple(x.shape)}; wrap it so "
            "that model(x, t) returns one tensor like x."
        )
    if not m.is_floating_point():
        raise ValueError(
            f"Field: the network returned {m.dtype}, but a prediction is a floating-point tensor; convert "
            "it in the network."
        )
    if m.device != x.device:
        raise ValueError(
            f"Field: the network returned a tensor on {m.device} for a state on {x.device}; let it return "
            "its output on the device of its input."
        )
