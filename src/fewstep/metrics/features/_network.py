"""What every feature network is: a map from 8-bit pictures to vectors, with a name that says which one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ..._hashing import fingerprint
from ...data import to_uint8

__all__ = ["FeatureNetwork", "quantize", "too_few"]


def quantize(samples: Tensor) -> Tensor:
    """Samples in [-1, 1] as the 8-bit pictures that a file of them would hold.

    Rounded to the nearest level and clamped, as :func:`fewstep.generate` does when it writes pictures, so
    that a sample has the same features before and after it was written. uint8 passes through.

    Shape:
        ``(B, C, H, W)`` to uint8 of the same shape.

    Raises:
        ValueError: for anything but pictures.
    """
    if samples.ndim != 4 or not (samples.dtype == torch.uint8 or samples.is_floating_point()):
        raise ValueError(
            "samples: must be pictures (B, C, H, W), uint8 or floating-point in [-1, 1], not "
            f"{samples.dtype} of shape {tuple(samples.shape)}."
        )
    return to_uint8(samples)


class FeatureNetwork(nn.Module):
    """A network whose features measure quality: uint8 ``(B, C, H, W)`` to float32 ``(B, dims)``.

    As it is a module with ``num_features``, torchmetrics takes it too:
    ``FrechetInceptionDistance(feature=network)``. :func:`load` knows several by name; :meth:`of` takes any.

    Args:
        features: what computes the features; put in evaluation mode if it is a module.
        name: which network this is.
        dims: how many features it has.
        distance_name: what a Fréchet distance in them is called. It is ``"FID"`` for the one Inception
            network that published numbers are of, and for no other.
        fingerprint: sha256 of the file of its weights, or for a module in memory a short hash of them;
            ``None`` where there are none.
        device: where it computes, for a function; a module computes where its weights are.
        shape: what one picture must be, ``(C, H, W)``, for a network that knows only that.

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
        """Where it computes, and pictures are moved to: a module can be moved with ``to`` afterwards."""
        weights = chain(self.parameters(), self.buffers())
        return next((each.device for each in weights), self._device)

    @classmethod
    def of(
        cls, features: Callable[[Tensor], Tensor], name: str, *, dims: int | None = None
    ) -> FeatureNetwork:
        """Make one of any module or function of 8-bit pictures.

        It is fingerprinted by its state dict, if it has one, and computes where its parameters are.

        Args:
            features: takes uint8 ``(B, C, H, W)`` and returns ``(B, dims)``; it scales levels itself.
            name: what to call it in reports.
            dims: how many features; by default the module's attribute ``num_features``.

        Raises:
            ValueError: when the number of features is not known.
        """
        dims = getattr(features, "num_features", None) if dims is None else dims
        if dims is None:
            raise ValueError(f"dims: {name} does not say how many features it has; pass dims=... .")
        weights = features.state_dict() if isinstance(features, nn.Module) else {}
        found = fingerprint(weights) if weights else None
        return cls(features, name, int(dims), f"Fréchet distance, {name}", found)

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Features of uint8 pictures.

        Raises:
            ValueError: for pictures of another type or shape, and when the network returns something else
                than ``dims`` numbers a picture.
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
        """Raise a ``ValueError`` when the network does not know pictures of a shape ``(C, H, W)``."""
        if self.shape not in (None, tuple(shape)):
            raise ValueError(
                f"{self.name}: knows pictures of shape {self.shape}, not {tuple(shape)}; give "
                "such pictures, or use other features."
            )

    def describe(self) -> dict[str, Any]:
        """JSON-ready facts that identify it."""
        return {"name": self.name, "sha256": self.fingerprint, "dims": self.dims}


def too_few(count: int, dims: int) -> str:
    """A warning of a Fréchet distance whose covariance has less than full rank; nothing where it has."""
    if count > dims:
        return ""
    return f"{count} pictures are too few for a covariance of {dims} features; the value is far too high"
