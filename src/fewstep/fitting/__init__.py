"""Fits of solvers to fields."""

from ._batch import find_batch
from ._fit import fit
from ._report import FitReport
from ._result import Fit
from ._search import Search, search
from ._settings import OPTIMIZERS, Adam, GaussNewton, Reference
from .losses import (
    ENDPOINT_LOSSES,
    LOSSES,
    PATH_LOSSES,
    EndpointLoss,
    Features,
    Loss,
    Nodes,
    Soft,
    Steps,
    bound_weights,
    local_errors,
    pseudo_huber,
)

__all__ = [
    "ENDPOINT_LOSSES",
    "LOSSES",
    "OPTIMIZERS",
    "PATH_LOSSES",
    "Adam",
    "EndpointLoss",
    "Features",
    "Fit",
    "FitReport",
    "GaussNewton",
    "Loss",
    "Nodes",
    "Reference",
    "Search",
    "Soft",
    "Steps",
    "bound_weights",
    "find_batch",
    "fit",
    "local_errors",
    "pseudo_huber",
    "search",
]
