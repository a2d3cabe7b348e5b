"""The claims of the papers, by the module that measures them."""

from . import _losses, _families, _uses, _limit, _straight  # noqa: F401, I001 - the order of the document
from ._claim import CLAIMS, Size, measured, table

__all__ = ["CLAIMS", "Size", "measured", "table"]
