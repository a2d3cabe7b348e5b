"""The page of a training: how it stands, its figures and pictures, and how to go on."""

from ._page import training_page
from ._run import FORMAT, SCHEMA, holds_training

__all__ = ["FORMAT", "SCHEMA", "holds_training", "training_page"]
