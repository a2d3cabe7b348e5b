"""Text, plots and images of solvers and samples."""

from .plots import coefficients, flow_scatter, front, inspected, picture_rows
from .text import describe, warnings

__all__ = [
    "coefficients",
    "describe",
    "flow_scatter",
    "front",
    "inspected",
    "picture_rows",
    "warnings",
]
