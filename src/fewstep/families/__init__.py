"""Families of solvers: maps from parameters to tables."""

from ._family import Family
from .curve import Curve
from .non_stationary import NonStationary
from .scale_time import ScaleTime, ScaleTimeNodes, ShiftNodes
from .timesteps import Timesteps

__all__ = ["Curve", "Family", "NonStationary", "ScaleTime", "ScaleTimeNodes", "ShiftNodes", "Timesteps"]
