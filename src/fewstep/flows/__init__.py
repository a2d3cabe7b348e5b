"""Training of flows: couplings, objectives, the training loop, distillation and reflow."""

from .config import TrainConfig
from .couplings import COUPLINGS, Coupled, Coupling, Independent, Learned, MinibatchOT, Mixed, Paired
from .distill import Distillation, sample_error, warm_start
from .kl_weight import KLWeight
from .losses import LOSSES, Loss, feature_mse, mse, pseudo_huber
from .objective import FlowMatching, Objective, flow_matching_loss
from .reflow import Reflowed, reflow
from .settings import Settings
from .trainer import Trainer

__all__ = [
    "COUPLINGS",
    "LOSSES",
    "Coupled",
    "Coupling",
    "Distillation",
    "FlowMatching",
    "Independent",
    "KLWeight",
    "Learned",
    "Loss",
    "MinibatchOT",
    "Mixed",
    "Objective",
    "Paired",
    "Reflowed",
    "Settings",
    "TrainConfig",
    "Trainer",
    "feature_mse",
    "flow_matching_loss",
    "mse",
    "pseudo_huber",
    "reflow",
    "sample_error",
    "warm_start",
]
