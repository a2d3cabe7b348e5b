"""Stage ``speed``: the time of a sampling beyond its network calls, and the time of a fit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

import fewstep as fs

from . import _fits
from ._loops import BARE, Setting, Way, compiled_network, compiled_sampling, guidance, ours, peers
from ._networks import CASES, Case, Nothing
from ._record import Options, Record
from ._ways import measure

__all__ = ["PARTS", "run"]

PROTOCOL = (
    "Networks of published sizes with random weights, whose values hardly matter for the time. Every "
    "sampling makes 8 network calls. The ways of one network, type and batch alternate in one process; "
    "each is repeated until it takes 10 ms, by CUDA events (on a CPU by the clock). us_per_call is the "
    "median over rounds of the sampling time over 8; ratio is the median over rounds of the time over "
    "that of the base in the same round, low and high are its quartiles; extra_us_per_call is the median "
    "of the difference to the base, over 8. first_s are the seconds to make a way and run it once, and "
    "peak_mib the most memory in that time besides what was allocated before it (weights, inputs, and the "
    "ways before it)."
)
BASE = "The base are 8 network calls on fixed inputs in a bare loop."
OURS = (
    "sample is Solver.sample with a table as dense as that of a fitted solver, which reads every earlier "
    "call, CUDA graph is Solver.compiled(mode='graph') of the same, and midpoint is Solver.sample of that "
    "method."
)
PEERS = (
    "The loops around diffusers' schedulers (with their default settings, set_timesteps included) and "
    "torchdiffeq are written as their users write them."
)
NOTHING = "A network that returns its input, 3 x 32 x 32 numbers a sample, in float32."
GUIDANCE = (
    "Eight guided network calls without a solver: with two forwards of the batch, which are the base, and "
    "with one forward of the doubled batch, its concatenation included. batch is that of the samples."
)
COMPILED_NETWORK = (
    f"{BASE} network compiled: torch.compile(network, dynamic=False), whose compilation is part of the "
    f"first_s of the first such row. {OURS}"
)
COMPILED = (
    f"{BASE} {OURS} compiled: Solver.compiled with that mode, which compiles all 8 calls as one graph; the "
    "compilation is part of first_s."
)
DTYPES = {torch.bfloat16: "bf16", torch.float32: "fp32"}

Ways = dict[str, Way]
Units = list[tuple[str, Callable[[], None]]]


class Part(NamedTuple):
    """A part of the stage.

    Args:
        protocol: what its rows measure.
        seconds: about how long the longest of its units takes on an H200.
        units: returns names and functions of its units, which add rows, from the record and the part's name.
    """

    protocol: str
    seconds: float
    units: Callable[[Record, str], Units]


def run(options: Options) -> dict[str, Any]:
    """Run the parts in the order of their importance, until the deadline."""
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        raise ValueError(
            f"--parts: there is no {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}."
        )
    record = Record("speed", PROTOCOL, options)
    cuda = options.device.type == "cuda"
    if not cuda:
        record.leave_out("CUDA graph", "CUDA graphs need a GPU")
    for name in options.parts or PARTS:
        part = PARTS[name]
        record.part(name, part.protocol)
        for unit, function in part.units(record, name):
            record.attempt(f"{name}: {unit}", 0 if options.tiny else part.seconds, function)
            torch.compiler.reset()
            if cuda:
                torch.cuda.empty_cache()
    return record.finish()


def _of_nothing(
    ways: Callable[[Setting], Ways], others: tuple[str, ...] = ()
) -> Callable[[Record, str], Units]:
    """Return a unit for the device and others, in which ways alternate around a network that does nothing."""

    def units(record: Record, part: str) -> Units:
        own = record.options.device
        places = {own.type: own, **{name: torch.device(name) for name in others}}
        return [(name, partial(measured, record, part, device)) for name, device in places.items()]

    def measured(record: Record, part: str, device: torch.device) -> None:
        network = Nothing().eval()
        for batch in (1, 64):
            x0 = torch.randn(batch, 3, 32, 32, device=device)
            setting = Setting(network, fs.Field(network, name="nothing"), x0, {})
            facts = {"device": device.type, "batch": batch}
            measure(record, part, facts, ways(setting), BARE, device)

    return units


def _of_networks(
    dtype: torch.dtype,
    ways: Callable[[Setting], Ways],
    base: str = BARE,
    cases: tuple[Case, ...] = CASES,
    sizes: tuple[str, ...] = ("one", "large"),
) -> Callable[[Record, str], Units]:
    """Return a unit for each network, in which the given ways alternate at some of two batch sizes."""

    def units(record: Record, part: str) -> Units:
        return [(case.name, partial(measured, record, part, case)) for case in cases]

    def measured(record: Record, part: str, case: Case) -> None:
        tiny, device = record.options.tiny, record.options.device
        network = case.network(tiny, device, dtype)
        for size in sizes[-1:] if tiny else sizes:
            batch = 1 if size == "one" else 2 if tiny else case.large
            x0, conditions = case.inputs(batch, tiny, device, dtype)
            setting = Setting(network, case.field(network, tiny), x0, conditions)
            facts = {"network": case.name, "dtype": DTYPES[dtype], "batch": batch}
            measure(record, part, facts, ways(setting), base, device)

    return units


def _loops(setting: Setting) -> Ways:
    return ours(setting) | peers(setting)


_16, _32 = torch.bfloat16, torch.float32
#: In the order of their importance.
PARTS = {
    "overhead": Part(f"{NOTHING} {BASE} {OURS} {PEERS}", 5, _of_nothing(_loops, ("cpu",))),
    "bf16": Part(f"{BASE} {OURS} {PEERS}", 20, _of_networks(_16, _loops)),
    "guidance": Part(GUIDANCE, 5, _of_networks(_16, guidance, "two forwards")),
    "fit": Part(_fits.FIT, 40, _fits.whole),
    "fp32": Part(f"{BASE} {OURS}", 15, _of_networks(_32, ours)),
    "fit-growth": Part(_fits.GROWTH, 8, _fits.growth),
    "compiled-overhead": Part(f"{NOTHING} {COMPILED}", 30, _of_nothing(compiled_sampling)),
    "compiled-network": Part(COMPILED_NETWORK, 60, _of_networks(_16, compiled_network, sizes=("one",))),
    "compiled-large": Part(COMPILED_NETWORK, 60, _of_networks(_16, compiled_network, sizes=("large",))),
    "compiled-sampling": Part(COMPILED, 240, _of_networks(_16, compiled_sampling, BARE, CASES[:1], ("one",))),
}
