"""How far a few-call sample is from the reference with the same noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._device import widest

__all__ = [
    "decibels",
    "mean_psnr",
    "per_sample_mse",
    "pooled_rmse",
    "psnr",
    "rmse",
]


def per_sample_mse(x: Tensor, reference: Tensor) -> Tensor:
    """Mean square of the difference over the dimensions of each sample, ``(B,)``.

    It is computed in float64, or in float32 on Apple's GPUs, which have nothing wider.
    """
    dtype = widest(x.device)
    return (x.to(dtype) - reference.to(dtype)).flatten(1).square().mean(dim=1)


def rmse(x: Tensor, reference: Tensor) -> Tensor:
    """Truncation error: the mean over samples of ``sqrt(mean_d (x - reference)^2)``.

    This is the RMSE of Shaul et al., *Bespoke Solvers* (ICLR 2024), eq. 6.
    """
    return per_sample_mse(x, reference).sqrt().mean()


def pooled_rmse(x: Tensor, reference: Tensor) -> Tensor:
    """``sqrt`` of the mean square over samples and dimensions together: outliers weigh more."""
    return per_sample_mse(x, reference).mean().sqrt()


def psnr(x: Tensor, reference: Tensor, data_range: float = 2.0) -> Tensor:
    """Peak signal-to-noise ratio in dB, averaged over samples; ``data_range`` is 2 for data in [-1, 1]."""
    return mean_psnr(per_sample_mse(x, reference), data_range)


def mean_psnr(mse: Tensor, data_range: float = 2.0) -> Tensor:
    """PSNR in dB, averaged over samples, of per-sample mean square errors."""
    return decibels(mse, data_range).mean()


def decibels(mse: Tensor, data_range: float = 2.0) -> Tensor:
    """PSNR in dB of each sample, from mean square errors; finite where a sample is exact."""
    floor = torch.finfo(mse.dtype).tiny
    return 20 * math.log10(data_range) - 10 * mse.clamp(min=floor).log10()
