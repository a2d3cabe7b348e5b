"""Bundled fields: small trained flows, and flows with a closed form."""

from ..networks import load_network, save_network
from .bundled import BUNDLED, bundled, load_field
from .mixture import GaussianMixture, random_mixture

__all__ = [
    "BUNDLED",
    "GaussianMixture",
    "bundled",
    "load_field",
    "load_network",
    "random_mixture",
    "save_network",
]
