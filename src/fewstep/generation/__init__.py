"""Generating many samples to files: numbered, resumable, by any number of processes."""

from ._generate import FORMATS, generate
from ._plan import parse_ranges, spell
from ._reader import read_generated
from ._records import describe_solver

__all__ = ["FORMATS", "describe_solver", "generate", "parse_ranges", "read_generated", "spell"]
