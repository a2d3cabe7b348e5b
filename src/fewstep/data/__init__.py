"""Data sets by name or path, and their conversion to training samples."""

from ._dataset import ArrayDataset, Dataset
from ._load import NAMES, load
from ._pixels import random_flip, scale, to_uint8
from .digits import digits
from .pair_shards import PairShards

__all__ = [
    "NAMES",
    "ArrayDataset",
    "Dataset",
    "PairShards",
    "digits",
    "load",
    "random_flip",
    "scale",
    "to_uint8",
]
