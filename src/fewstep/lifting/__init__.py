"""Lifted solvers: small networks that correct the states of a fitted solver.

The coefficients of a table combine the predictions that it has seen. What lies outside their span no
coefficients reach; a network of some ten thousand weights, which reads the noise, all predictions and the
state, can. The model is called as often as before.
"""

from ._lift import lift
from ._load import load
from ._settings import Training

__all__ = ["Training", "lift", "load"]
