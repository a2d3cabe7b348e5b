"""Detection of fields whose declarations contradict the training of their network."""

from ._check import Check, check
from ._judge import Finding

__all__ = ["Check", "Finding", "check"]
