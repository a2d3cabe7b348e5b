"""Training flows: couplings of noise and data, what is minimised, and the loop."""

from .config import TrainConfig
from .couplings import Coupled, Coupling, Independent, Learned, MinibatchOT, Mixed, Paired
from .kl_weight import KLWeight
from .objective import FlowMatching, Objective, flow_matching_loss
from .settings import Settings
from .trainer import Trainer

__all__ = [
    "Coupled",
    "Coupling",
    "FlowMatching",
    "Independent",
    "KLWeight",
    "Learned",
    "MinibatchOT",
    "Mixed",
    "Objective",
    "Paired",
    "Settings",
    "TrainConfig",
    "Trainer",
    "flow_matching_loss",
]
