"""The page of a comparison, and the files beside it."""

from ._page import comparison_page, write_comparison

__all__ = ["comparison_page", "write_comparison"]
