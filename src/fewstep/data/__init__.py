"""Data that comes with the package."""

from .digits import digits

__all__ = ["digits"]
