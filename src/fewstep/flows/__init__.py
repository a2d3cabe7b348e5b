"""Training flows."""

from .train import flow_matching_loss, train_flow

__all__ = ["flow_matching_loss", "train_flow"]
