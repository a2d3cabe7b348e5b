"""What metrics and solvers of a comparison are called, and how that makes them look."""

from __future__ import annotations

__all__ = ["axis_label", "is_fitted", "is_gain", "label"]

#: What metrics are called, and on an axis.
_LABELS = {
    "rmse": ("RMSE", "RMSE to the reference"),
    "psnr": ("PSNR", "PSNR to the reference (dB)"),
    "pooled_rmse": ("pooled RMSE", "pooled RMSE to the reference"),
    "fid": ("FID", "FID"),
    "kid": ("KID", "KID"),
}

_GAINS = ("psnr", "precision", "recall", "density", "coverage")


def label(metric: str) -> str:
    """What a metric is called in a sentence."""
    return _names(metric)[0]


def axis_label(metric: str) -> str:
    """What a metric is called on an axis."""
    return _names(metric)[1]


def is_gain(metric: str) -> bool:
    """Whether more is better. Such metrics have a linear axis, as they are logarithms already, or shares."""
    return metric in _GAINS


def is_fitted(name: str) -> bool:
    """Whether a solver is what a comparison is about; see :func:`fewstep.comparison.shown_name`."""
    return name.startswith("fitted")


def _names(metric: str) -> tuple[str, str]:
    kind, _, network = metric.partition("_")
    if metric not in _LABELS and network and kind in ("frechet", "kernel"):
        name = "Fréchet distance" if kind == "frechet" else "kernel distance"
        return name, f"{name}, {network} features"
    return _LABELS.get(metric, (metric, metric))
