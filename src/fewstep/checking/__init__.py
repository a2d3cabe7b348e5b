"""Whether a field is wired as its network was trained."""

from ._check import Check, check
from ._judge import Finding

__all__ = ["Check", "Finding", "check"]
