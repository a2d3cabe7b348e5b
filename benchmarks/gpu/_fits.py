"""Seconds of a fit, where they go, and how they grow with its settings."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep.fitting import GaussNewton, Reference

from ._networks import CASES
from ._record import Record
from ._timing import without_tf32

__all__ = ["FIT", "GROWTH", "growth", "whole"]

FIT = (
    "fs.fit for 8 calls with its defaults. seconds is all of it; reference_s, search_s, fit_s and errors_s "
    "are parts of it, from its report: the pairs, the choice of a start, the optimiser with its validation, "
    "and the classical solvers of the report. network_s is the time within forwards of the network, by CUDA "
    "events. network_calls counts samples, forwards counts batches. The CIFAR-10 U-Net has random weights "
    "with an output of unit size and is in bfloat16, which resolves no tolerance of 1e-6, so the reference "
    "has rtol = atol = 1e-3; it stops after 100,000 network calls. The bundled MNIST flow has 1.0 M "
    "parameters and is in float32 with torch's defaults (TF32 convolutions)."
)
GROWTH = (
    "fs.fit of the bundled MNIST flow in float32 without TF32: 10 iterations of Gauss-Newton for 8 calls "
    "on 256 pairs, at most 4096 samples per forward, the non-stationary family; varied names the one "
    "setting that differs. Columns as for fit."
)
#: The settings of a short fit, and their changes, the first of which is none.
SHORT = {"nfe": 8, "pairs": 256, "batch": 4096, "family": "non_stationary"}
CHANGES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("nothing", {}),
    *(("calls", {"nfe": nfe}) for nfe in (4, 16)),
    *(("pairs", {"pairs": pairs}) for pairs in (64, 1024)),
    *(("batch", {"batch": batch}) for batch in (32, 256)),
    *(("parameters", {"family": family}) for family in ("timesteps", "scale_time")),
)
TINY = {"pairs": 4, "batch": 64}


class Timed(nn.Module):
    """A network that adds up the time of its forwards, without waiting for the device after each."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.forwards, self._clock = 0, 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.forwards += 1
        if x.is_cuda:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self._events.append((start, end))
            start.record()
            prediction: Tensor = self.network(x, t)
            end.record()
            return prediction
        started = time.perf_counter()
        prediction = self.network(x, t)
        self._clock += time.perf_counter() - started
        return prediction

    @property
    def seconds(self) -> float:
        """Seconds of all forwards so far."""
        if self._events:
            self._events[-1][1].synchronize()
        return self._clock + sum(start.elapsed_time(end) for start, end in self._events) / 1000


def whole(record: Record, part: str) -> list[tuple[str, Callable[[], None]]]:
    """Return the fits with defaults, of a large network and of a small one."""
    tiny, device = record.options.tiny, record.options.device

    def large() -> None:
        case = CASES[0]
        network = case.network(tiny, device, torch.bfloat16)
        _unit_output(network.inner.output_layer)
        options: dict[str, Any] = {"reference": Reference(1e-3, 1e-3), "max_calls": 100_000, "pairs": 256}
        options |= {"pairs": 4, "optimizer": GaussNewton(iterations=1)} if tiny else {}
        _fit(record, part, case.field(network, tiny), network="CIFAR-10 U-Net", dtype="bf16", options=options)

    def small() -> None:
        options = {"pairs": 4, "optimizer": GaussNewton(iterations=1)} if tiny else {}
        _fit(record, part, _bundled(record), network=_name(tiny), dtype="fp32", options=options)

    return [("CIFAR-10 U-Net, bf16", large), (f"{_name(tiny)}, fp32", small)]


def growth(record: Record, part: str) -> list[tuple[str, Callable[[], None]]]:
    """Return the short fits, each with one setting changed."""
    tiny = record.options.tiny
    field = _bundled(record)

    def fitted(varied: str, change: dict[str, Any]) -> None:
        options = {**SHORT, **(TINY if tiny else {}), **change}
        optimizer = GaussNewton(iterations=1 if tiny else 10)
        with without_tf32():
            _fit(record, part, field, varied=varied, options={**options, "optimizer": optimizer})

    def unit(varied: str, change: dict[str, Any]) -> tuple[str, Callable[[], None]]:
        label = ", ".join([varied, *map(str, change.values())])
        return label, lambda: fitted(varied, change)

    return [unit(*each) for each in (CHANGES[:2] if tiny else CHANGES)]


def _fit(record: Record, part: str, field: fs.Field, options: dict[str, Any], **facts: Any) -> None:
    """Fit, and add the row of it."""
    timed = copy(field)
    timed.model = network = Timed(field.model)
    started = time.perf_counter()
    report = fs.fit(timed, **{"nfe": 8, **options}).report
    seconds = time.perf_counter() - started
    calls = sum(report.calls.values())
    record.row(
        part,
        **facts,
        nfe=report.rows[0]["nfe"],
        pairs=sum(report.pairs.values()),
        batch=options.get("batch", 4096),
        family=report.family,
        parameters=report.parameters,
        iterations=len(report.curve) - 1,
        network_calls=calls,
        forwards=network.forwards,
        seconds=seconds,
        **{f"{purpose}_s": spent for purpose, spent in report.seconds.items()},
        network_s=network.seconds,
        us_per_network_call=1e6 * seconds / calls,
    )


def _unit_output(layer: nn.Module) -> None:
    """Give a layer, which starts near zero, weights for an output about as large as the data's."""
    nn.init.xavier_uniform_(layer.weight)


def _bundled(record: Record) -> fs.Field:
    name = _name(record.options.tiny)
    field = fs.models.bundled(name.removeprefix("bundled "))
    field.model.to(record.options.device)
    return field


def _name(tiny: bool) -> str:
    return "bundled digits" if tiny else "bundled mnist"
