"""The call of a diffusers network, and the processing of its output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .._network import floating_type
from ._denoise import Denoise
from ._network import Network
from .edm import precondition

__all__ = ["CONCATENATED", "Call", "merged", "output_tensor"]

#: The condition that is concatenated to the state, as the mask and image of an inpainting network.
CONCATENATED = "concatenated"


@dataclass(frozen=True)
class Call:
    """``call(network, x, time, **conditions)`` for a network of diffusers.

    Args:
        names: names of the network's arguments for state and time; ``None`` if they are its first two.
        sign: factor of the output.
        sigma_data: standard deviation of the data for a raw network to be preconditioned, else ``None``.
        sigma_min: for a raw network, the lowest noise level passed to it.
        cut: dimensions in which the output is cut to the size of the state, as it also holds a variance.
        row: shape of one state as the network takes it, if not that of the field.
        listed: the network takes and returns lists of states.
        joined: dimension in which the condition :data:`CONCATENATED` follows the state.
        fixed: arguments that are the same in every call, merged with the conditions.
        lists: places of conditions that are mappings of numbers here, but lists for the network.
    """

    names: tuple[str, str] | None = None
    sign: int = 1
    sigma_data: float | None = None
    sigma_min: float = 0.0
    cut: tuple[int, ...] = ()
    row: tuple[int, ...] | None = None
    listed: bool = False
    joined: int | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    lists: tuple[tuple[str, ...], ...] = ()

    @property
    def casts_input(self) -> bool:
        """True if states are preconditioned before the network gets them in its own type."""
        return self.sigma_data is not None

    def __call__(self, network: Network, x: Tensor, time: Tensor, **conditions: Any) -> Tensor:
        def raw(x: Tensor, time: Tensor) -> Tensor:
            return self._raw(network, x.to(floating_type(network) or x.dtype), time, conditions)

        s, lowest = self.sigma_data, self.sigma_min
        if s is None:
            return self._raw(network, x, time, conditions)
        return Denoise(lowest)(lambda x, sigma: precondition(raw, x, sigma, s, lowest), x, time)

    def _raw(self, network: Network, x: Tensor, time: Tensor, conditions: Mapping[str, Any]) -> Tensor:
        given = merged(self.fixed, conditions)
        for path in self.lists:
            given = _listed(given, path)
        state: Tensor | list[Tensor] = x
        if self.joined is not None:
            state = torch.cat([x, given.pop(CONCATENATED).to(x.dtype)], dim=self.joined)
        if self.row is not None:
            state = x.reshape(len(x), *self.row)
        if self.listed:
            state = list(state)
        if self.names is None:
            output = output_tensor(network(state, time, **given))
        else:
            output = output_tensor(network(**dict(zip(self.names, (state, time), strict=True)), **given))
        if self.row is not None and output.numel() == x.numel():
            output = output.reshape(x.shape)
        for dim in self.cut:
            if dim == self.joined or output.shape[dim] == 2 * x.shape[dim]:
                output = output.narrow(dim, 0, x.shape[dim])
        return output if self.sign == 1 else -output


def output_tensor(output: Any) -> Tensor:
    """Return the prediction in a network's output: a tensor, a tuple, an output with ``.sample``, or a list.

    Lists hold one tensor a sample.
    """
    if isinstance(output, tuple):
        output = output[0]
    elif not isinstance(output, Tensor | list):
        output = output.sample
    return torch.stack(output) if isinstance(output, list) else output


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return both mappings in one, with mappings of the same name merged."""
    both = {**first, **second}
    for name in first.keys() & second.keys():
        if isinstance(first[name], Mapping) and isinstance(second[name], Mapping):
            both[name] = merged(first[name], second[name])
    return both


def _listed(tree: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Return a mapping with the one at a place, of numbers, as a list."""
    name, *rest = path
    return {**tree, name: _listed(tree[name], tuple(rest)) if rest else list(tree[name].values())}
