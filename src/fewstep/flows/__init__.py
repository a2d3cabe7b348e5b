"""Training of flows: couplings, objectives, the training loop, distillation and reflow."""

from ._by_name import COUPLINGS
from .config import TrainConfig
from .couplings import Coupled, Coupling, Independent, Learned, Mixed, Paired
from .distill import Distillation, sample_error, warm_start
from .kl_weight import KLWeight
from .losses import LOSSES, Loss, feature_mse, mse, pseudo_huber
from .objective import FlowMatching, Objective, flow_matching_loss
from .reflow import Reflowed, reflow
from .settings import Settings
from .trainer import Trainer
from .transport import MinibatchOT, PooledOT, TransportPairs

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
    "PooledOT",
    "Reflowed",
    "Settings",
    "TrainConfig",
    "Trainer",
    "TransportPairs",
    "feature_mse",
    "flow_matching_loss",
    "mse",
    "pseudo_huber",
    "reflow",
    "sample_error",
    "warm_start",
]
