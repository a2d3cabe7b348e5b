"""Text, plots and images of solvers and samples."""

from .plots import coefficients, error_against_nfe, flow_scatter, front, inspected, picture_rows
from .text import describe, warnings

__all__ = [
    "coefficients",
    "describe",
    "error_against_nfe",
    "flow_scatter",
    "front",
    "inspected",
    "picture_rows",
    "warnings",
]
