"""Networks ``(x, t) -> velocity``, encoders, and network files."""

from .corrector import Corrector
from .diffusers_unet import DiffusersUNet
from .encoder import GaussianEncoder
from .fast_ode import ReverseTime, load_fast_ode, load_fast_ode_encoder
from .file import build_network, load_network, network_config, save_network
from .mlp import MLP
from .song_unet import SongUNet, song_unet_preset
from .unet import UNet

__all__ = [
    "MLP",
    "Corrector",
    "DiffusersUNet",
    "GaussianEncoder",
    "ReverseTime",
    "SongUNet",
    "UNet",
    "build_network",
    "load_fast_ode",
    "load_fast_ode_encoder",
    "load_network",
    "network_config",
    "save_network",
    "song_unet_preset",
]
