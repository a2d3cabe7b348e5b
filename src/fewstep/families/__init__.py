"""Families of solvers: maps from parameters to tables."""

from ._family import Family
from ._refined import refined
from .curve import Curve
from .following import Following
from .non_stationary import NonStationary
from .scale_time import ScaleTime, ScaleTimeNodes, ShiftNodes
from .timesteps import Timesteps

__all__ = [
    "Curve",
    "Family",
    "Following",
    "NonStationary",
    "ScaleTime",
    "ScaleTimeNodes",
    "ShiftNodes",
    "Timesteps",
    "refined",
]
