"""How far samples are from the reference, and how curved their paths."""

from .curvature import CurvatureMeter, curvature
from .errors import METRICS, mean_psnr, per_sample_mse, pooled_rmse, psnr, rmse

__all__ = [
    "METRICS",
    "CurvatureMeter",
    "curvature",
    "mean_psnr",
    "per_sample_mse",
    "pooled_rmse",
    "psnr",
    "rmse",
]

