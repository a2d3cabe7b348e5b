"""Couplings by name."""

from __future__ import annotations

from .couplings import Coupling, Independent, Learned, Mixed
from .transport import MinibatchOT, PooledOT

__all__ = ["COUPLINGS"]

#: Couplings of data with noise, by name in a configuration.
COUPLINGS: dict[str, type[Coupling]] = {
    kind.name: kind for kind in (Independent, Learned, Mixed, MinibatchOT, PooledOT)
}
