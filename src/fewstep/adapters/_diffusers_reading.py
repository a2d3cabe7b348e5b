"""The call, guidance and clock of a network, read from a recorded pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._conditions import row_count
from ._diffusers_guidance import Guidance, mix
from ._diffusers_values import plain, refuse, same, tolerance
from ._diffusers_watch import FEWEST, NetworkCall, Recording, Step

__all__ = ["Evaluation", "Form", "Reading", "form_of", "read"]


@dataclass(frozen=True)
class Form:
    """How a call holds states: the argument, the shape of one state, lists, concatenation and scale."""

    name: str
    row: tuple[int, ...] | None
    listed: bool
    joined: int | None
    blocks: int
    scale: float


@dataclass(frozen=True)
class Evaluation:
    """One prediction for all samples: the arguments of a call, and which of its blocks of rows are its own.

    Args:
        arguments: those besides state and time.
        block: number of the block.
        rows: number of rows of the call.
        extra: what is concatenated to the states.
    """

    arguments: Mapping[str, Any]
    block: int
    rows: int
    extra: Tensor | None


@dataclass(frozen=True)
class Reading:
    """What a recorded pipeline says of its network.

    Args:
        network: the network.
        form: the form of its states.
        time: name of its time argument.
        cut: dimensions in which its output is cut.
        evaluations: the prediction, or two whose mix is guidance, the conditional one first.
        sign: factor of their mix in what the scheduler gets.
        guidance: scale of the first, ``None`` without guidance, and how its size is changed.
        times: the network's times and the scheduler's, one of each a step.
        scalar: the time is passed without a batch dimension.
        steps: the steps read.
    """

    network: nn.Module
    form: Form
    time: str
    cut: tuple[int, ...]
    evaluations: tuple[Evaluation, ...]
    sign: int
    guidance: Guidance
    times: tuple[tuple[float, float], ...]
    time_type: torch.dtype
    scalar: bool
    steps: tuple[Step, ...]


def read(record: Recording) -> Reading:
    """Read a recording.

    Raises:
        ValueError: when it is not that of one network with constant conditions and linear guidance.
    """
    steps = _loop(record)
    try:
        return _read(steps)
    except ValueError:
        halves = [_halved(step) for step in steps]
        if any(half is None for half in halves):
            raise
    return _read([half for half in halves if half is not None])


def _loop(record: Recording) -> list[Step]:
    """Return the steps with the calls of the one network in the loop."""
    if len(record.steps) < FEWEST:
        made = "one step" if record.steps else "no step of its scheduler"
        refuse(
            f"the pipeline made {made}, but two tell the clock; pass more num_inference_steps, or a larger "
            "strength"
        )
    looped = {call.module: None for step in record.steps[1:] for call in step.calls}
    names = [record.names[module] for module in looped]
    if not names:
        refuse("the pipeline called none of its modules between two steps, so that it has no network")
    if len(names) > 1:
        refuse(f"{len(names)} networks ({', '.join(names)}) act in the pipeline's steps; a field has one")
    return [
        Step([c for c in step.calls if c.module in looped], step.timestep, step.sample, step.output)
        for step in record.steps
    ]


def _halved(step: Step) -> Step | None:
    """Return a step of states that are doubled for guidance with half of them, ``None`` for others."""
    count = len(step.sample) // 2
    if len(step.sample) != 2 * count or len(step.output) != 2 * count:
        return None
    for value in (step.sample, step.output):
        if not torch.equal(value[:count], value[count:]):
            return None
    return Step(step.calls, step.timestep, step.sample[:count], step.output[:count])


def _read(steps: Sequence[Step]) -> Reading:
    first = steps[0].calls
    if any(len(step.calls) != len(first) for step in steps):
        refuse("the number of network calls changes from step to step, as guidance in an interval does")
    form = form_of(first[0], steps[0].sample)
    changing = {
        name
        for step in steps[1:]
        for call, other in zip(first, step.calls, strict=True)
        for name in call.arguments.keys() | other.arguments.keys()
        if name != form.name and not same(call.arguments.get(name), other.arguments.get(name))
    }
    if len(changing) != 1:
        what = f"arguments {', '.join(sorted(changing))} change" if changing else "no argument changes"
        refuse(f"{what} from step to step, where the network's time alone may, so that there is no ODE")
    (time,) = changing
    cut = _cut(first[0].prediction, form, steps[0].sample)
    outputs = [[b for call in step.calls for b in _blocks(call, form, cut, step.sample)] for step in steps]
    evaluations = [e for call in first for e in _evaluations(call, form, steps[0].sample, time)]
    kinds = [step.output for step in steps] + [call.prediction for call in first]
    tol = max(max(1e-4, 2 * tolerance(value)) for value in kinds)
    sign, order, guidance = mix(outputs, [step.output for step in steps], tol)
    times = tuple((_time(step.calls[0].arguments[time], time), step.timestep) for step in steps)
    told = first[0].arguments[time]
    return Reading(
        first[0].module,
        form,
        time,
        cut,
        tuple(evaluations[k] for k in order),
        sign,
        guidance,
        times,
        told.dtype if isinstance(told, Tensor) else torch.float64,
        not isinstance(told, Tensor) or told.ndim == 0,
        tuple(steps),
    )


def form_of(call: NetworkCall, sample: Tensor) -> Form:
    """Find the argument that holds the scheduler's sample, times a factor."""
    for name, value in call.arguments.items():
        listed = isinstance(value, list)
        states = _stacked(value)
        if states is None or not states.is_floating_point() or len(states) % len(sample):
            continue
        row, wanted = states.shape[1:], sample.shape[1:]
        joined = _longer(states, sample)
        if joined is not None:
            states = states.narrow(joined, 0, sample.shape[joined])
        elif row.numel() != wanted.numel():
            continue
        blocks, x = plain(states).reshape(-1, sample.numel()), plain(sample).flatten()
        scale = float((blocks.mean(0) @ x) / (x @ x))
        if scale > 0 and float((blocks - scale * x).norm() / blocks.norm()) < tolerance(states):
            shape = None if joined is not None or row == wanted else tuple(row)
            return Form(name, shape, listed, joined, len(blocks), scale)
    refuse(
        f"no argument of {type(call.module).__name__} is the scheduler's sample of shape "
        f"{tuple(sample.shape)} or a multiple of it, so that its states cannot be told"
    )


def _longer(states: Tensor, sample: Tensor) -> int | None:
    """Return the one dimension in which states are longer than the sample, ``None`` if there is none."""
    if states.ndim != sample.ndim:
        return None
    dims = [d for d in range(1, sample.ndim) if states.shape[d] != sample.shape[d]]
    return dims[0] if len(dims) == 1 and states.shape[dims[0]] > sample.shape[dims[0]] else None


def _cut(output: Tensor, form: Form, sample: Tensor) -> tuple[int, ...]:
    """Return the dimensions in which the output is to be cut to the size of the sample."""
    dim = None if form.row is not None else _longer(output, sample)
    return () if dim is None else (dim,)


def _blocks(call: NetworkCall, form: Form, cut: tuple[int, ...], sample: Tensor) -> list[Tensor]:
    """Return the blocks of the output, each like the sample."""
    output = call.prediction
    for dim in cut:
        output = output.narrow(dim, 0, sample.shape[dim])
    if output.numel() != form.blocks * sample.numel():
        refuse(
            f"{type(call.module).__name__} returned shape {tuple(output.shape)} for states of shape "
            f"{tuple(sample.shape)}, which cannot be cut to it"
        )
    return list(plain(output).reshape(form.blocks, *sample.shape))


def _evaluations(call: NetworkCall, form: Form, sample: Tensor, time: str) -> Iterator[Evaluation]:
    arguments = {name: v for name, v in call.arguments.items() if name not in (form.name, time)}
    count, states = len(sample), call.arguments[form.name]
    for block in range(form.blocks):
        extra = None
        if form.joined is not None:
            start = sample.shape[form.joined]
            rows = states[block * count : (block + 1) * count]
            extra = rows.narrow(form.joined, start, rows.shape[form.joined] - start)
        yield Evaluation(arguments, block, form.blocks * count, extra)


def _time(value: Any, name: str) -> float:
    """Return the one time in an argument."""
    told = torch.as_tensor(value).flatten()
    if told.ndim != 1 or len(told) == 0 or not bool((told == told[0]).all()):
        refuse(f"argument {name} changes from step to step, but is not one time for all samples")
    return float(told[0])


def _stacked(value: Any) -> Tensor | None:
    """Return a tensor with rows, or a list of equal tensors as one."""
    if isinstance(value, Tensor):
        return value if row_count(value) else None
    tensors = isinstance(value, list) and value and all(isinstance(part, Tensor) for part in value)
    return torch.stack(value) if tensors and len({part.shape for part in value}) == 1 else None
