"""The file of a fit that many solvers are read from: their functions, theta, the field and the record."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from .._json_file import read_json, write_json
from .curve_report import CurveReport

__all__ = ["Content", "check_theta", "has_format", "load_shared", "save_shared"]

SCHEMA = 1

Solvers = TypeVar("Solvers")


class Content(NamedTuple):
    """What a file holds besides the functions."""

    theta: Tensor
    report: CurveReport
    fitted_for: Mapping[str, Any]


def check_theta(kind: str, facts: Mapping[str, Any], size: int, theta: Tensor) -> None:
    """Raise a ``ValueError`` unless theta has as many numbers as the functions."""
    if theta.shape != (size,):
        raise ValueError(f"theta: a {kind} of {facts} has {size} numbers, not {theta.numel()}.")


def save_shared(path: str | os.PathLike[str], kind: str, facts: Mapping[str, Any], content: Content) -> None:
    """Write a JSON file that a person can read; theta keeps every bit."""
    write_json(
        path,
        {
            "format": f"fewstep.{kind}",
            "schema": SCHEMA,
            kind: facts,
            "theta": content.theta.tolist(),
            "fitted_for": content.fitted_for,
            "report": content.report.to_dict(),
        },
    )


def load_shared(
    path: str | os.PathLike[str],
    kind: str,
    saved_by: str,
    make: Callable[[Mapping[str, Any], Content], Solvers],
) -> Solvers:
    """``make(facts, content)`` of a file that :func:`save_shared` wrote.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is truncated, newer than this version, or of another kind.
    """
    keys = (kind, "theta", "fitted_for", "report")
    content = read_json(path, kind, saved_by, f"fewstep.{kind}", SCHEMA, keys)
    try:
        theta = torch.tensor(content["theta"], dtype=torch.float64)
        if not bool(theta.isfinite().all()):
            raise ValueError("theta: must be finite numbers.")
        report = CurveReport.from_dict(content["report"])
        return make(content[kind], Content(theta, report, content["fitted_for"]))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: {error}") from None


def has_format(path: str | os.PathLike[str], kind: str) -> bool:
    """Whether there is a JSON file at ``path`` whose format is that of this kind."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == f"fewstep.{kind}"
