"""Errors of few-call samples against the reference from the same noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._device import widest

__all__ = ["decibels", "mean_psnr", "per_sample_mse", "pooled_rmse", "psnr", "rmse"]


def per_sample_mse(x: Tensor, reference: Tensor) -> Tensor:
    """Mean square difference over the dimensions of each sample, ``(B,)``.

    Computed in float64, or in float32 on Apple's GPUs, which have no float64.
    """
    dtype = widest(x.device)
    return (x.to(dtype) - reference.to(dtype)).flatten(1).square().mean(dim=1)


def rmse(x: Tensor, reference: Tensor) -> Tensor:
    """Truncation error: the mean over samples of ``sqrt(mean_d (x - reference)^2)``.

    This is the RMSE of Shaul et al., *Bespoke Solvers* (ICLR 2024), eq. 6.
    """
    return per_sample_mse(x, reference).sqrt().mean()


def pooled_rmse(x: Tensor, reference: Tensor) -> Tensor:
    """Root mean square over samples and dimensions; weights outliers more than :func:`rmse`."""
    return per_sample_mse(x, reference).mean().sqrt()


def psnr(x: Tensor, reference: Tensor, data_range: float = 2.0) -> Tensor:
    """Mean over samples of the peak signal-to-noise ratio in dB; ``data_range`` is 2 for data in [-1, 1]."""
    return mean_psnr(per_sample_mse(x, reference), data_range)


def mean_psnr(mse: Tensor, data_range: float = 2.0) -> Tensor:
    """Mean PSNR in dB, from per-sample mean square errors."""
    return decibels(mse, data_range).mean()


def decibels(mse: Tensor, data_range: float = 2.0) -> Tensor:
    """PSNR in dB of each sample, from mean square errors; finite for exact samples."""
    floor = torch.finfo(mse.dtype).tiny
    return 20 * math.log10(data_range) - 10 * mse.clamp(min=floor).log10()
