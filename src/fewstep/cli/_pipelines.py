"""Pipelines of diffusers as models: ``diffusers:FOLDER``."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from .._device import check_device
from .._extras import require
from .._names import check_name
from .._reading import excerpt, read_bytes, reading
from ..adapters.diffusers import Task, from_pipeline
from ..field import Field
from ..fitting import find_batch
from ._common import MODEL, PREFIX, load_model, move
from ._condition_files import conditioned
from ._options import Positive

__all__ = ["MODEL_OR_PIPELINE", "Loaded", "Pipeline", "load_with_conditions"]

MODEL_OR_PIPELINE = f"{MODEL} Or diffusers:FOLDER, a pipeline with its --prompts (a name on the Hub, online)."

_TYPES = ("float32", "float16", "bfloat16")
#: Most bytes of a file of prompts.
_PROMPTS = 1 << 25


@dataclass(frozen=True)
class Pipeline:
    """The call of a pipeline.

    Args:
        prompts: text file with one prompt a line; noises take them in turn.
        guidance_scale: scale of guidance, as the pipeline counts it.
        call: further arguments of its call, as "{height: 512, negative_prompt: blurry}".
        dtype: float32, float16 or bfloat16, of all its networks; by default bfloat16 on a GPU, else float32.
        encode: most prompts in one call of the pipeline, which is watched to encode them.
    """

    prompts: Path | None = None
    guidance_scale: float | None = None
    call: Mapping[str, Any] | None = None
    dtype: str | None = None
    encode: Positive = 8

    def options(self) -> dict[str, Any]:
        """Return those that are given, as words of the command line."""
        given = {name: value for name, value in vars(self).items() if value != getattr(Pipeline, name)}
        if self.call:
            given["call"] = json.dumps(self.call)
        return {name.replace("_", "-"): value for name, value in given.items()}

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the pipeline's call.

        Raises:
            ValueError: when the file of prompts cannot be read or is empty, or ``call`` is no mapping.
        """
        if not isinstance(self.call or {}, Mapping):
            raise ValueError(f"--call: must be a mapping, as {{height: 512}}, not {self.call!r}.")
        found = dict(self.call or {})
        if self.guidance_scale is not None:
            found["guidance_scale"] = self.guidance_scale
        if self.prompts is not None:
            found["prompt"] = _lines(self.prompts)
        return found


@dataclass(frozen=True)
class Loaded:
    """A model with the conditions of its samples, and the name of the pipeline, if it is that of one."""

    task: Task
    pipeline: str | None = None

    @property
    def field(self) -> Field:
        """The model."""
        return self.task.field

    @property
    def name(self) -> str:
        """Name in files and results."""
        return self.pipeline or self.field.name

    def of(self, samples: int | Sequence[int] | None) -> Loaded:
        """Return it for a number of samples, or their numbers, which take a pipeline's prompts in turn."""
        return replace(self, task=self.task.of(samples)) if self.pipeline and samples is not None else self

    @property
    def given(self) -> dict[str, Any]:
        """The conditions, as keyword arguments."""
        found = {"conditions": self.task.conditions, "per_sample": self.task.per_sample}
        return {name: value for name, value in found.items() if value}

    def batch(self, default: int) -> int:
        """Return the most samples per network call: the default, or of pipelines what is found by trying."""
        return find_batch(self.field, most=default, **self.given) if self.pipeline else default


def load_with_conditions(
    spec: str, pipeline: Pipeline, conditions: Path | None, per_sample: Path | None, device: str
) -> Loaded:
    """Return the model named on the command line, with its conditions, on a device.

    Raises:
        ValueError: when the options are those of the other kind of model, or as for its parts.
    """
    if not spec.startswith(PREFIX):
        if given := list(pipeline.options()):
            raise ValueError(
                f"--{given[0]}: is for a pipeline, not for the model {spec}; name the "
                "pipeline as diffusers:FOLDER."
            )
        told = conditioned(conditions, per_sample, device)
        field = load_model(spec, device)
        return Loaded(Task(field, told.get("conditions", {}), told.get("per_sample", {}), None, 1.0))
    if conditions is not None or per_sample is not None:
        raise ValueError(
            "--conditions, --per-sample: a pipeline makes its own from --prompts and --call; leave them out."
        )
    name = spec.removeprefix(PREFIX)
    if not name:
        raise ValueError(
            f"MODEL: {PREFIX} names no pipeline; add the folder of one, as in diffusers:FOLDER, or its name "
            "on the Hub."
        )
    return _watched(name, pipeline, check_device(device))


def _watched(name: str, pipeline: Pipeline, device: torch.device) -> Loaded:
    """Load a pipeline, watch it, and keep its network alone.

    On a GPU each part is there only while it works, as text encoders may need more memory than the network.
    """
    arguments = pipeline.arguments()
    pipe = _loaded(name, pipeline.dtype or ("bfloat16" if device.type == "cuda" else "float32"))
    if device.type == "cuda":
        require("accelerate", "diffusers")
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.to(device)
    try:
        task = from_pipeline(pipe, batch=pipeline.encode, **arguments)
    except (TypeError, ValueError) as error:
        said = " ".join(str(error).split())
        if "prompt" in signature(type(pipe).__call__).parameters and "prompt" not in arguments:
            said = f"--prompts: it needs a text file with one prompt a line, as it says: {said}"
        raise ValueError(f"{PREFIX}{name}: {said}") from error
    pipe.remove_all_hooks()
    del pipe
    gc.collect()
    move(task.field, device)
    return Loaded(task, Path(name).name)


def _loaded(name: str, dtype: str) -> Any:
    check_name("--dtype:", dtype, _TYPES)
    diffusers = require("diffusers", "diffusers")
    local = Path(name).exists()
    if local and not (Path(name) / "model_index.json").is_file():
        raise ValueError(f"MODEL: {name} is no folder of a pipeline, as it has no model_index.json.")
    older = tuple(map(int, diffusers.__version__.split(".")[:2])) < (0, 42)
    given = {"torch_dtype" if older else "dtype": getattr(torch, dtype)}
    try:
        pipe = diffusers.DiffusionPipeline.from_pretrained(name, **given)
    except Exception as error:  # of many packages
        what = "cannot be loaded" if local else "is no folder here, and cannot be loaded from the Hub"
        reason = excerpt(" ".join(str(error).split())).rstrip(".")
        raise ValueError(f"MODEL: {name} {what}: {reason}.") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _lines(path: Path) -> list[str]:
    with reading(f"--prompts: {path}", "text of a prompt a line", "an editor"):
        lines = [line.strip() for line in read_bytes(path, _PROMPTS).decode("utf-8-sig").splitlines()]
    found = [line for line in lines if line]
    if not found:
        raise ValueError(f"--prompts: {path} has no prompts; write one a line.")
    return found
