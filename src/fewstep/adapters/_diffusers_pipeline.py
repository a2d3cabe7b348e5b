"""The field and conditions of a pipeline's call, watched at once or in parts of its prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from .._conditions import row_count
from ._diffusers_task import Task, check_counts, task_of
from ._diffusers_values import refuse, same

__all__ = ["from_pipeline"]

#: Arguments of a pipeline that may have one row per prompt, by a part of their names.
_BY_PROMPT = ("prompt", "latents", "generator", "class_labels", "image")
#: Dimensions of several images in one array, and of several masks, which have no channels.
_IMAGES, _MASKS = 4, 3


def from_pipeline(pipe: Any, *, batch: int | None = None, **arguments: Any) -> Task:
    """Return the field of a call of a diffusers pipeline, by watching a few of its steps.

    The pipeline runs for a few steps (or ``num_inference_steps``), without decoding, and is left as it was.
    What it passes to its network and scheduler tells

    - the conditions: which of the network's arguments have one row per sample and which are shared,
      embedded guidance and image ids among them, in nested mappings and lists as well;
    - guidance: its scale and sign, by solving for the weights of the network's outputs in what the scheduler
      gets. The result of one call of a doubled batch or of two calls is the same field;
    - the clock: the relation of the network's times to the scheduler's;
    - the sign of a velocity, by the direction of a step;
    - the shape of the latents, and channels that are concatenated to them (inpainting).

    Schedule and prediction are those of the scheduler's settings; see
    :func:`fewstep.adapters.diffusers.field`. The field is compared with the pipeline at the last watched
    step before it is returned. Its name holds the shape and the shift, so that a solver fitted for it says
    when it is used at others.

    >>> task = from_pipeline(pipe, prompt=["a cat", "a dog"], num_images_per_prompt=4)
    >>> fit = fewstep.fit(task.field, nfe=8, conditions=task.conditions, per_sample=task.per_sample)

    With many prompts, ``batch`` of them are watched at a time, so that they need no more memory than a call
    with so many. Afterwards the field needs the network alone: text encoders can be deleted or moved.

    Args:
        pipe: the pipeline.
        batch: most prompts in one call; all by default. Arguments with one row per prompt are split.
        **arguments: arguments of ``pipe(...)``: prompts or their embeddings, ``guidance_scale``, ``height``,
            ``latents`` and others. Random numbers are drawn as by any call.

    Raises:
        ValueError: when the pipeline has no network or scheduler; when prompts and latents disagree in
            number; or when its steps are not those of one ODE with linear guidance, such as those with
            guidance rescale, guidance in an interval, or two networks.
    """
    if batch is not None and (isinstance(batch, bool) or not isinstance(batch, Integral) or batch < 1):
        refuse(f"batch must be a whole number of prompts, at least 1, not {batch!r}")
    for name, value in arguments.items():
        if _is_by_prompt(name) and row_count(value) == 0:
            refuse(f"{name} is empty; pass one at least")
    check_counts(arguments)
    pieces = [dict(arguments)] if batch is None else _parts(arguments, batch)
    return _joined([task_of(pipe, piece) for piece in pieces])


def _parts(arguments: Mapping[str, Any], batch: int) -> list[dict[str, Any]]:
    """Split the arguments of a pipeline's call into calls with ``batch`` prompts at most.

    A single prompt among several would have rows that look as if all samples shared them, so that parts are
    of one size, up to one prompt, and may exceed ``batch`` by one.
    """
    count = _prompts(arguments)
    pieces = -(-count // batch)
    if batch > 1 and count // max(pieces, 1) == 1:
        pieces -= 1
    if pieces < 2:
        return [dict(arguments)]
    bounds = [count * k // pieces for k in range(pieces + 1)]
    each = {name: _rows_each(name, value, count) for name, value in arguments.items()}
    return [
        {
            name: value[first * r : last * r] if (r := each[name]) else value
            for name, value in arguments.items()
        }
        for first, last in zip(bounds, bounds[1:], strict=False)
    ]


def _prompts(arguments: Mapping[str, Any]) -> int:
    """Return the number of prompts of a call."""
    for name in ("prompt", "prompt_embeds", "class_labels"):
        value = arguments.get(name)
        if value is not None and not isinstance(value, str):
            return row_count(value) or 1
    return 1


def _rows_each(name: str, value: Any, count: int) -> int:
    """Return how many rows of an argument belong to one of ``count`` prompts, 0 if all prompts share it."""
    rows = row_count(value) if _is_by_prompt(name) else None
    several = _MASKS if "mask" in name else _IMAGES
    if name.endswith("image") and getattr(value, "ndim", several) < several:
        return 0  # an array of one image, whose first dimension is that of channels, or of pixels
    if name == "latents" and rows is not None:
        return rows // count  # of several images a prompt
    return int(rows == count)


def _is_by_prompt(name: str) -> bool:
    return any(part in name for part in _BY_PROMPT)


def _joined(tasks: Sequence[Task]) -> Task:
    """Return the task of all samples of several, of one network.

    Raises:
        ValueError: when they do not differ in rows of samples alone.
    """
    first = tasks[0]
    if len(tasks) == 1:
        return first
    _check_alike("conditions that all samples share", [task.conditions for task in tasks])
    _check_alike("shapes", [task.field.shape for task in tasks])
    _check_alike("guidance_rescale", [task.field.guidance_rescale for task in tasks])
    scales = [task.field.guidance or 0.0 for task in tasks]
    if max(scales) - min(scales) > 0.01 * max(scales):
        _check_alike("guidance", scales)
    field = copy(first.field)
    field.unconditional = _rows([task.field.unconditional for task in tasks], once=True)
    noises = [task.noise for task in tasks]
    noise = None if first.noise is None else torch.cat([each for each in noises if each is not None])
    return replace(first, field=field, per_sample=_rows([task.per_sample for task in tasks]), noise=noise)


def _check_alike(what: str, values: Sequence[Any]) -> None:
    if not all(same(values[0], value) for value in values):
        refuse(f"parts of the prompts have different {what}; watch all prompts at once, with batch=None")


def _rows(trees: Sequence[Mapping[str, Any]], once: bool = False) -> dict[str, Any]:
    """Return the rows of several mappings of values, one after another.

    With ``once``, values that are the same in all of them are kept as they are, since one row serves all.
    """
    _check_alike("names of conditions", [list(tree) for tree in trees])
    found: dict[str, Any] = {}
    for name, value in trees[0].items():
        values = [tree[name] for tree in trees]
        shapes = {tuple(each.shape[1:]) for each in values if isinstance(each, Tensor)}
        if once and all(same(value, each) for each in values):
            found[name] = value
        elif isinstance(value, Mapping):
            found[name] = _rows(values, once)
        elif len(shapes) > 1:
            refuse(
                f"{name} has rows of shapes {', '.join(map(str, sorted(shapes)))} in parts of the prompts; "
                "watch all prompts at once, with batch=None"
            )
        else:
            found[name] = torch.cat(values) if shapes else type(value)(row for each in values for row in each)
    return found
