"""The page of a training run: its state, metrics and previews, and the next commands."""

from ._page import training_page
from ._run import FORMAT, SCHEMA, holds_training

__all__ = ["FORMAT", "SCHEMA", "holds_training", "training_page"]
