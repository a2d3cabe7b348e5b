"""Losses for fitting.

* :class:`EndpointLoss`: the mean over samples of a function of the endpoint's mean square error.
* :class:`Features`, :class:`Nodes`: the same of the endpoint's features, or of every trajectory point.
* :class:`Soft`: an endpoint loss from the best noise near the given one.
* :class:`Steps`: local errors of single steps that start on the reference path, or a bound made of them.

All but the last two are reweighted least squares, for Gauss-Newton; Adam minimises all.
"""

from __future__ import annotations

from ._features import Features
from ._loss import ENDPOINT_LOSSES, EndpointLoss, LeastSquares, Loss, pseudo_huber
from ._pairs import FeaturePairs, PathPairs
from ._paths import PATH_LOSSES, Nodes, Steps, bound_weights, local_errors
from ._soft import Soft

__all__ = [
    "ENDPOINT_LOSSES",
    "LOSSES",
    "PATH_LOSSES",
    "EndpointLoss",
    "FeaturePairs",
    "Features",
    "LeastSquares",
    "Loss",
    "Nodes",
    "PathPairs",
    "Soft",
    "Steps",
    "bound_weights",
    "local_errors",
    "pseudo_huber",
]

#: The losses by name; :class:`Features` has none, as it needs a feature map.
LOSSES: dict[str, Loss] = {
    **ENDPOINT_LOSSES,
    "nodes": Nodes(),
    "soft": Soft(),
    **{name: Steps(name) for name in PATH_LOSSES},
}
