"""Families of solvers: maps from parameters to tables."""

from ._family import Family
from ._linked import Linked
from .curve import Curve
from .guided import Guided
from .non_stationary import NonStationary
from .scale_time import ScaleTime, ScaleTimeNodes
from .smooth_corrections import SmoothCorrections
from .timesteps import Timesteps

__all__ = [
    "Curve",
    "Family",
    "Guided",
    "Linked",
    "NonStationary",
    "ScaleTime",
    "ScaleTimeNodes",
    "SmoothCorrections",
    "Timesteps",
]
