"""Labels and plot styles of metrics and solvers."""

from __future__ import annotations

__all__ = ["axis_label", "is_fitted", "is_gain", "label"]

#: Labels of metrics in text and on an axis.
_LABELS = {
    "rmse": ("RMSE", "RMSE to the reference"),
    "psnr": ("PSNR", "PSNR to the reference (dB)"),
    "pooled_rmse": ("pooled RMSE", "pooled RMSE to the reference"),
    "fid": ("FID", "FID"),
    "kid": ("KID", "KID"),
}

_GAINS = ("psnr", "precision", "recall", "density", "coverage")


def label(metric: str) -> str:
    """Return the name of a metric in text."""
    return _names(metric)[0]


def axis_label(metric: str) -> str:
    """Return the label of a metric's axis."""
    return _names(metric)[1]


def is_gain(metric: str) -> bool:
    """True for metrics where more is better; as logarithms or shares, they are plotted on a linear axis."""
    return metric in _GAINS


def is_fitted(name: str) -> bool:
    """True for the shown names of fitted solvers; see :func:`fewstep.comparison.shown_name`."""
    return name.startswith("fitted")


def _names(metric: str) -> tuple[str, str]:
    kind, _, network = metric.partition("_")
    if metric not in _LABELS and network and kind in ("frechet", "kernel"):
        name = "Fréchet distance" if kind == "frechet" else "kernel distance"
        return name, f"{name}, {network} features"
    return _LABELS.get(metric, (metric, metric))
