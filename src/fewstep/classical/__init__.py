"""Classical solvers, each a function that returns a table."""

from . import grids
from ._baselines import baselines
from .adams import adams_bashforth
from .exponential import ddim, dpmpp
from .runge_kutta import (
    TABLEAUX,
    ButcherTableau,
    euler,
    heun,
    midpoint,
    ralston,
    rk2,
    rk4,
    runge_kutta,
)

__all__ = [
    "TABLEAUX",
    "ButcherTableau",
    "adams_bashforth",
    "baselines",
    "ddim",
    "dpmpp",
    "euler",
    "grids",
    "heun",
    "midpoint",
    "ralston",
    "rk2",
    "rk4",
    "runge_kutta",
]
