"""Feature networks: named maps from 8-bit images to vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ..._hashing import fingerprint
from ...data import to_uint8, warn_of_levels

__all__ = ["FeatureNetwork", "quantize", "too_few"]


def quantize(samples: Tensor) -> Tensor:
    """Convert samples in [-1, 1] to 8-bit images, as in an image file.

    They are rounded to the nearest level and clamped, as in image files written by :func:`fewstep.generate`,
    so that a sample has the same features before and after it is written. uint8 passes through.

    Shape:
        ``(B, C, H, W)`` to uint8 of the same shape.

    Raises:
        ValueError: for data that are not images.
    """
    if samples.ndim != 4 or not (samples.dtype == torch.uint8 or samples.is_floating_point()):
        raise ValueError(
            "samples: must be pictures (B, C, H, W), uint8 or floating-point in [-1, 1], not "
            f"{samples.dtype} of shape {tuple(samples.shape)}."
        )
    warn_of_levels(samples, "samples")
    return to_uint8(samples)


class FeatureNetwork(nn.Module):
    """A feature network for quality metrics: uint8 ``(B, C, H, W)`` to float32 ``(B, dims)``.

    As a module with ``num_features`` it also works in torchmetrics:
    ``FrechetInceptionDistance(feature=network)``. :func:`load` opens several by name; :meth:`of` wraps any.

    Args:
        features: module or function that computes the features; a module is put in evaluation mode.
        name: name of the network.
        dims: number of features.
        distance_name: name of a Fréchet distance in these features: ``"FID"`` only for the Inception network
            of published values.
        fingerprint: sha256 of the weights' file, or a short hash of the weights of a module in memory;
            ``None`` without weights.
        device: device of a function; a module computes on the device of its weights.
        shape: required shape of one image, ``(C, H, W)``, for a network with a fixed input.

    Attributes:
        num_features: the same as ``dims``.
    """

    def __init__(
        self,
        features: Callable[[Tensor], Tensor],
        name: str,
        dims: int,
        distance_name: str,
        fingerprint: str | None,
        device: torch.device | str = "cpu",
        shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self._features = features.eval() if isinstance(features, nn.Module) else features
        self.name, self.dims, self.num_features = name, dims, dims
        self.distance_name, self.fingerprint = distance_name, fingerprint
        self.shape, self._device = shape, torch.device(device)

    @property
    def device(self) -> torch.device:
        """The device of the network, to which images are moved; ``to`` moves a module."""
        weights = chain(self.parameters(), self.buffers())
        return next((each.device for each in weights), self._device)

    @classmethod
    def of(
        cls, features: Callable[[Tensor], Tensor], name: str, *, dims: int | None = None
    ) -> FeatureNetwork:
        """Wrap any module or function of 8-bit images.

        Its fingerprint is that of its state dict, if it has one; it computes on the device of its parameters.

        Args:
            features: maps uint8 ``(B, C, H, W)`` to ``(B, dims)``, including the scaling of levels.
            name: name in reports.
            dims: number of features; by default the module's attribute ``num_features``.

        Raises:
            ValueError: when the number of features is unknown.
        """
        dims = getattr(features, "num_features", None) if dims is None else dims
        if dims is None:
            raise ValueError(f"dims: {name} does not say how many features it has; pass dims=... .")
        weights = features.state_dict() if isinstance(features, nn.Module) else {}
        found = fingerprint(weights) if weights else None
        return cls(features, name, int(dims), f"Fréchet distance, {name}", found)

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Return the features of uint8 images.

        Raises:
            ValueError: for images of another type or shape, or when the network does not return ``dims``
                numbers per image.
        """
        if pictures.dtype != torch.uint8 or pictures.ndim != 4:
            raise ValueError(
                f"{self.name}: needs uint8 pictures (B, C, H, W), not {pictures.dtype} of shape "
                f"{tuple(pictures.shape)}; fewstep.metrics.features.quantize makes them of samples."
            )
        self.check(pictures.shape[1:])
        features = self._features(pictures.to(self.device))
        if features.shape != (len(pictures), self.dims):
            raise ValueError(
                f"{self.name}: returned features of shape {tuple(features.shape)} for {len(pictures)} "
                f"pictures, where {(len(pictures), self.dims)} was announced."
            )
        return features.float()

    def check(self, shape: Sequence[int]) -> None:
        """Raise a ``ValueError`` when the network does not accept images of a shape ``(C, H, W)``."""
        if self.shape not in (None, tuple(shape)):
            raise ValueError(
                f"{self.name}: knows pictures of shape {self.shape}, not {tuple(shape)}; give "
                "such pictures, or use other features."
            )

    def describe(self) -> dict[str, Any]:
        """Return facts that identify the network, ready for JSON."""
        return {"name": self.name, "sha256": self.fingerprint, "dims": self.dims}


def too_few(count: int, dims: int) -> str:
    """Return a warning about a Fréchet distance with a rank-deficient covariance, or an empty string."""
    if count > dims:
        return ""
    return f"{count} pictures are too few for a covariance of {dims} features; the value is far too high"
