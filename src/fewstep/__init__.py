"""fewstep: samples of ODE-based generative models in very few network calls."""

from . import classical, data, families, models, pairs, reference, schedules
from .classical import grids
from .field import Field
from .pairs import Pairs, noise
from .solver import Path, Solver

__version__ = "0.1.0"

__all__ = [
    "Field",
    "Pairs",
    "Path",
    "Solver",
    "classical",
    "data",
    "families",
    "grids",
    "models",
    "noise",
    "pairs",
    "reference",
    "schedules",
]
