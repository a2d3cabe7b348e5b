"""Time grids: the times of a solver's trajectory points, as increasing tuples from 0 to 1.

In closed form: :func:`uniform`, :func:`cosine`, :func:`quadratic`, :func:`karras`, :func:`log_snr` and
:func:`flow_shift`. From lists of other frameworks: :func:`sigmas`, :func:`timesteps`, :func:`spaced`.
Published for large models: :func:`ays`. Optimised for a field: :func:`gits`, :func:`optimal_steps`; for a
schedule alone: :func:`dmn`.
"""

from ._grid_bound import dmn
from ._grid_lists import ays, sigmas, spaced, timesteps
from ._grid_search import GridSearch, gits, optimal_steps
from ._grids import cosine, flow_shift, flux_mu, karras, log_snr, quadratic, resolve, uniform

__all__ = [
    "GridSearch",
    "ays",
    "cosine",
    "dmn",
    "flow_shift",
    "flux_mu",
    "gits",
    "karras",
    "log_snr",
    "optimal_steps",
    "quadratic",
    "resolve",
    "sigmas",
    "spaced",
    "timesteps",
    "uniform",
]
