"""A diffusers U-Net as a network of this package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .._extras import require
from ._shared import SharedNetwork

__all__ = ["DiffusersUNet"]


class DiffusersUNet(SharedNetwork):
    """diffusers' ``UNet2DModel`` as ``(x, t) -> velocity``, with ``t = 0`` noise and ``t = 1`` data.

    The U-Net is called with timestep ``time_scale * t`` and its output is the velocity, so this is for flows
    trained that way. A pretrained diffusers denoiser counts timesteps from data to noise and predicts the
    noise; no ``time_scale`` turns that into a velocity.

    Args:
        unet: the ``UNet2DModel``; it is used, not copied.
        time_scale: timestep passed to the U-Net at ``t = 1``; its sinusoids are made for 0 to 1000.

    Shape:
        ``x``: ``(B, in_channels, H, W)``; ``t``: ``()`` or ``(B,)``; output ``(B, out_channels, H, W)``.
        Conditions, such as ``class_labels``, are passed to the U-Net unchanged.

    Raises:
        ValueError: on a model of another class, or one that cannot take every time in [0, 1].
    """

    def __init__(self, unet: nn.Module, time_scale: float = 1000.0) -> None:
        super().__init__()
        if not isinstance(unet, require("diffusers", "diffusers").UNet2DModel):
            raise ValueError(
                f"DiffusersUNet: the model must be a diffusers.UNet2DModel, not a {type(unet).__name__}; "
                "wrap other models yourself as model(x, t) -> velocity."
            )
        settings: Any = unet.config
        if settings["time_embedding_type"] != "positional":
            # 'learned' only has rows for whole timesteps; 'fourier' takes the logarithm of the time.
            raise ValueError(
                f"DiffusersUNet: time_embedding_type={settings['time_embedding_type']!r} cannot take "
                "every time in [0, 1]; use one with 'positional'."
            )
        self.unet = unet
        self.train(unet.training)
        self.time_scale = time_scale
        self.in_channels: int = settings["in_channels"]
        self.out_channels: int = settings["out_channels"]

    @classmethod
    def from_config(cls, unet: Mapping[str, Any], time_scale: float = 1000.0) -> DiffusersUNet:
        """Build a network with fresh weights from the arguments of ``UNet2DModel``."""
        return cls(require("diffusers", "diffusers").UNet2DModel(**unet), time_scale)

    @property
    def config(self) -> dict[str, Any]:
        """The arguments of :meth:`from_config`, ready for JSON."""
        settings: Any = self.unet.config
        unet = {key: value for key, value in settings.items() if not key.startswith("_")}
        return {"unet": unet, "time_scale": self.time_scale}

    @property
    def output_layer(self) -> nn.Module:
        """The last layer of the network."""
        layer: nn.Module = self.unet.get_submodule("conv_out")
        return layer

    def forward(self, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        velocity: Tensor = self.unet(x, (self.time_scale * t).expand(x.shape[0]), **conditions).sample
        return velocity
