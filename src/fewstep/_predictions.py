"""The predictions of a network, and the conversions between them.

At a time ``t`` every quantity of interest is a combination of the data ``d`` and the noise ``e``:

    x = alpha d + sigma e            velocity = alpha' d + sigma' e
    data = d        noise = e        v = alpha e - sigma d

so a prediction ``p`` is ``A x + B q`` for any other prediction ``q`` not parallel to ``x``, with
``A, B`` from a 2 x 2 linear system (Cramer's rule).
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from ._names import check_name
from .schedules import SchedulePoint

__all__ = ["PREDICTIONS", "Prediction", "check_prediction", "conversion", "in_data_and_noise"]

Prediction = Literal["velocity", "noise", "data", "v"]
PREDICTIONS: tuple[str, ...] = get_args(Prediction)


def check_prediction(prediction: str) -> None:
    """Raise a ``ValueError`` unless ``prediction`` is the name of one."""
    check_name("prediction:", prediction, PREDICTIONS)


def conversion(point: SchedulePoint, wanted: str, given: str) -> tuple[Tensor, Tensor]:
    """Return ``A, B`` with ``wanted = A x + B given``, at every time of ``point``.

    They are not finite where ``given`` is parallel to ``x``: a noise prediction in pure noise (alpha = 0),
    a data prediction in pure data (sigma = 0).
    """
    x = (point.alpha, point.sigma)
    p, q = in_data_and_noise(point, wanted), in_data_and_noise(point, given)
    if wanted == given:
        return 0 * point.alpha, 0 * point.alpha + 1
    determinant = x[0] * q[1] - x[1] * q[0]
    return (p[0] * q[1] - p[1] * q[0]) / determinant, (x[0] * p[1] - x[1] * p[0]) / determinant


def in_data_and_noise(point: SchedulePoint, prediction: str) -> tuple[Tensor, Tensor]:
    """Return the coefficients of the data and of the noise in a prediction."""
    zero, one = 0 * point.alpha, 0 * point.alpha + 1
    return {
        "velocity": (point.d_alpha, point.d_sigma),
        "data": (one, zero),
        "noise": (zero, one),
        "v": (-point.sigma, point.alpha),
    }[prediction]
