"""Warm start: further training of a trained flow."""

from __future__ import annotations

import copy

from torch import nn

from ..field import Field
from ..schedules import CondOT

__all__ = ["warm_start"]


def warm_start(field: Field) -> nn.Module:
    """Return a trainable copy of a field's network; the field's own weights do not change.

    Raises:
        ValueError: when the field is guided, or its network does not predict the velocity of straight paths.
    """
    if not isinstance(field.model, nn.Module) or next(field.model.parameters(), None) is None:
        raise ValueError(
            f"field: {field.name} is a {type(field.model).__name__}, which has no weights to train; give a "
            "field of a torch.nn.Module with parameters."
        )
    if field.prediction != "velocity" or field.schedule != CondOT():
        raise ValueError(
            f"field: {field.name} predicts {field.prediction} under {field.schedule!r}, but training on from "
            "it needs velocity under CondOT(); make pairs with it, and train a flow on them."
        )
    if field.guidance is not None:
        raise ValueError(
            f"field: {field.name} has guidance {field.guidance:g}, which its network alone does not apply; "
            "make pairs with it, and train from the field without guidance."
        )
    return copy.deepcopy(field.model).requires_grad_(True)
