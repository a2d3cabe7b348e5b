"""Data sets by name or path, and their conversion to training samples."""

from ._dataset import ArrayDataset, Dataset
from ._load import NAMES, load
from .digits import digits
from .pair_shards import PairShards
from .pictures import is_picture, random_flip, save_pictures, scale, sheet_levels, to_uint8, warn_of_levels

__all__ = [
    "NAMES",
    "ArrayDataset",
    "Dataset",
    "PairShards",
    "digits",
    "is_picture",
    "load",
    "random_flip",
    "save_pictures",
    "scale",
    "sheet_levels",
    "to_uint8",
    "warn_of_levels",
]
