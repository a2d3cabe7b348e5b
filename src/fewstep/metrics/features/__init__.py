"""Feature networks for image quality metrics: by name, from a file, or custom."""

from ._load import NAMES, load
from ._network import FeatureNetwork, quantize, too_few
from ._references import REFERENCES, Reference, load_reference
from ._streaming import ROUNDING, feature_matrix, feature_moments

__all__ = [
    "NAMES",
    "REFERENCES",
    "ROUNDING",
    "FeatureNetwork",
    "Reference",
    "feature_matrix",
    "feature_moments",
    "load",
    "load_reference",
    "quantize",
    "too_few",
]
