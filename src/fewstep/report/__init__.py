"""Text, plots and images of solvers and samples."""

from .pictures import picture_rows
from .plots import coefficients, error_against_nfe, flow_scatter, front, inspected
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
