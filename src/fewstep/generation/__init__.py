"""Generating many samples to files: numbered, resumable, by any number of processes."""

from ._generate import FORMATS, generate
from ._plan import parse_ranges, spell
from ._reader import read_generated

__all__ = ["FORMATS", "generate", "parse_ranges", "read_generated", "spell"]
