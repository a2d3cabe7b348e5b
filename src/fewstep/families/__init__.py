"""Families of solvers: maps from parameters to tables."""

from ._family import Family
from ._linked import Linked
from .curve import Curve
from .non_stationary import NonStationary
from .scale_time import ScaleTime, ScaleTimeNodes
from .timesteps import Timesteps

__all__ = ["Curve", "Family", "Linked", "NonStationary", "ScaleTime", "ScaleTimeNodes", "Timesteps"]
