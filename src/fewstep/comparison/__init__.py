"""Comparison of solvers on the same noises."""

from ._compare import check_metrics, compare, shown_name
from ._comparison import Comparison, Kept
from ._measure import Meter, Quality
from ._quality import FeatureQuality

__all__ = [
    "Comparison",
    "FeatureQuality",
    "Kept",
    "Meter",
    "Quality",
    "check_metrics",
    "compare",
    "shown_name",
]
