"""The page and the files of a comparison."""

from ._page import comparison_page, write_comparison
from ._sections import chart

__all__ = ["chart", "comparison_page", "write_comparison"]
