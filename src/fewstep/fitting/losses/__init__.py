"""What fitting minimises.

* Of the endpoint (:class:`EndpointLoss`): the mean over samples of a function of the mean square error.
* Of its features (:class:`Features`), or of every trajectory point (:class:`Nodes`): likewise.
* Of the endpoint from the best noise near the given one (:class:`Soft`).
* Of single steps that start on the reference path (:class:`Steps`): local errors and their bound.

All but the last two are least squares, reweighted, which Gauss-Newton can minimise; Adam can do all.
"""

from __future__ import annotations

from ._endpoint import ENDPOINT_LOSSES, EndpointLoss, pseudo_huber
from ._features import Features
from ._loss import LeastSquares, Loss
from ._nodes import Nodes
from ._pairs import FeaturePairs, PathPairs
from ._soft import Soft
from ._steps import PATH_LOSSES, Steps, bound_weights, check_one_step, local_errors

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
    "check_one_step",
    "local_errors",
    "pseudo_huber",
]

#: The losses that have a name; :class:`Features` needs a map.
LOSSES: dict[str, Loss] = {
    **ENDPOINT_LOSSES,
    "nodes": Nodes(),
    "soft": Soft(),
    **{name: Steps(name) for name in PATH_LOSSES},
}
