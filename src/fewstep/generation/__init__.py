"""Generating many samples to files: numbered, resumable, by any number of processes."""

from ._generate import FORMATS, generate

__all__ = ["FORMATS", "generate"]
