"""Sampling as one compiled program, or as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ._names import check_name
from ._program import Program

__all__ = ["Compiled", "Mode"]

Mode = Literal["graph", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]

#: Modes of ``torch.compile`` whose results lie in memory that the next run writes to.
_REUSED = ("reduce-overhead", "max-autotune")

_Run = Callable[[Tensor, Mapping[str, Any]], Tensor]


class Compiled:
    """The samples of a solver and a field, compiled; made by :meth:`fewstep.Solver.compiled`.

    Args:
        program: the solver and the field.
        like: noise of the shape, type and device to come.
        conditions: conditions like those to come.
        mode: ``"graph"``, or a mode of ``torch.compile``.
    """

    def __init__(self, program: Program, like: Tensor, conditions: Mapping[str, Any], mode: Mode) -> None:
        check_name("compiled: mode", mode, get_args(Mode))
        if mode == "graph" and like.device.type != "cuda":
            raise ValueError(
                f"compiled: mode 'graph' needs noise on CUDA, but like is on {like.device}; use 'default'."
            )
        self.program, self.mode = program, mode
        with torch.no_grad():
            program.run(like, conditions)  # shows which types the networks take, and their own errors
            self._run: _Run = _Graph(program, like, conditions) if mode == "graph" else _traced(program, mode)
            self._run(like, conditions)

    def __call__(self, x0: Tensor, *, check: bool = False, **conditions: Any) -> Tensor:
        """Return the samples of ``x0``.

        Args:
            x0: standard normal noise like that given to :meth:`Solver.compiled`.
            check: look for NaN and infinity in the samples, which waits for the device.
            **conditions: passed to the network.

        Raises:
            ValueError: when noise or conditions are not like those that a graph was recorded with.
            FloatingPointError: when the network returns NaN or infinity; gives the call and time.
        """
        with torch.no_grad():
            x1 = self._run(x0, conditions)
        if check and not torch.isfinite(x1).all():
            self.program.explain(x0, conditions)
        return x1


def _traced(program: Program, mode: str) -> _Run:
    run: _Run = torch.compile(program.run, fullgraph=True, mode=mode)
    if mode not in _REUSED:
        return run

    def copied(x0: Tensor, conditions: Mapping[str, Any]) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return run(x0, conditions).clone()

    return copied


class _Graph:
    """The kernels of one sampling in a CUDA graph, with places for noise and conditions."""

    def __init__(self, program: Program, like: Tensor, conditions: Mapping[str, Any]) -> None:
        leaves, self._structure = pytree.tree_flatten(({"x0": like}, dict(conditions)))
        self._places = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        noise, held = pytree.tree_unflatten(self._places, self._structure)
        stream = torch.cuda.Stream(like.device)
        stream.wait_stream(torch.cuda.current_stream(like.device))
        with torch.cuda.stream(stream):  # libraries choose their kernels before the recording
            program.run(noise["x0"], held)
        torch.cuda.current_stream(like.device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._x1 = program.run(noise["x0"], held)

    def __call__(self, x0: Tensor, conditions: Mapping[str, Any]) -> Tensor:
        leaves, structure = pytree.tree_flatten(({"x0": x0}, dict(conditions)))
        if structure != self._structure:
            raise ValueError(
                f"compiled: the conditions are {structure}, but the graph was recorded with "
                f"{self._structure}; pass the same names, or record another graph."
            )
        for place, leaf in zip(self._places, leaves, strict=True):
            _fill(place, leaf)
        self._graph.replay()
        return self._x1.clone()


def _fill(place: Any, leaf: Any) -> None:
    """Copy a tensor to its place in a graph; refuse what the graph cannot take."""
    if not isinstance(place, Tensor) or not isinstance(leaf, Tensor):
        if type(place) is not type(leaf) or not np.array_equal(place, leaf):
            raise ValueError(
                f"compiled: the graph was recorded with a condition {place!r:.60}, and cannot take "
                f"{leaf!r:.60}; pass conditions that change as tensors, or record another graph."
            )
    elif (place.shape, place.dtype, place.device) != (leaf.shape, leaf.dtype, leaf.device):
        raise ValueError(
            f"compiled: the graph was recorded with {place.dtype} of shape {tuple(place.shape)} on "
            f"{place.device}, and cannot take {leaf.dtype} of shape {tuple(leaf.shape)} on {leaf.device}; "
            "pad the last batch, or record another graph."
        )
    else:
        place.copy_(leaf)
