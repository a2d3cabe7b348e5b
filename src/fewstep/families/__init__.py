"""Families of solvers: maps from parameters to tables."""

from ._by_name import FAMILIES, Solvers
from ._family import Family, Linked
from ._refined import refined
from .following import Following
from .guided import Guided
from .non_stationary import NonStationary
from .scale_time import ScaleTime, ScaleTimeNodes
from .smooth_corrections import SmoothCorrections
from .timesteps import Timesteps

__all__ = [
    "FAMILIES",
    "Family",
    "Following",
    "Guided",
    "Linked",
    "NonStationary",
    "ScaleTime",
    "ScaleTimeNodes",
    "SmoothCorrections",
    "Solvers",
    "Timesteps",
    "refined",
]
