"""Classical solvers, each made by a function of its steps or grid."""

from . import grids
from ._baselines import GRIDS, METHODS, STOCHASTIC, baselines, named
from .adams import adams_bashforth
from .deis import deis, ipndm
from .exploding import edm_heun, exploding_runge_kutta, lms
from .exponential import ddim, dpm_solver, dpmpp
from .exponential_runge_kutta import (
    EXPONENTIAL_TABLEAUX,
    ExponentialTableau,
    exponential_adams,
    exponential_runge_kutta,
)
from .runge_kutta import (
    TABLEAUX,
    ButcherTableau,
    bogacki_shampine,
    dormand_prince,
    euler,
    heun,
    heun3,
    kutta3,
    midpoint,
    ralston,
    rk2,
    rk4,
    runge_kutta,
    ssprk3,
    three_eighths,
)
from .singlestep import dpm_singlestep
from .stochastic import dpmpp_2m_sde, edm_stochastic, euler_ancestral, sa_solver
from .unipc import unipc
from .universal import data_scale, universal

__all__ = [
    "EXPONENTIAL_TABLEAUX",
    "GRIDS",
    "METHODS",
    "STOCHASTIC",
    "TABLEAUX",
    "ButcherTableau",
    "ExponentialTableau",
    "adams_bashforth",
    "baselines",
    "bogacki_shampine",
    "data_scale",
    "ddim",
    "deis",
    "dormand_prince",
    "dpm_singlestep",
    "dpm_solver",
    "dpmpp",
    "dpmpp_2m_sde",
    "edm_heun",
    "edm_stochastic",
    "euler",
    "euler_ancestral",
    "exploding_runge_kutta",
    "exponential_adams",
    "exponential_runge_kutta",
    "grids",
    "heun",
    "heun3",
    "ipndm",
    "kutta3",
    "lms",
    "midpoint",
    "named",
    "ralston",
    "rk2",
    "rk4",
    "runge_kutta",
    "sa_solver",
    "ssprk3",
    "three_eighths",
    "unipc",
    "universal",
]
