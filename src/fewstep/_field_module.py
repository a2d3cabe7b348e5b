"""Fields as modules, for frameworks that expect one."""

from __future__ import annotations

from torch import nn

from ._field import FieldBase

__all__ = ["FieldModule"]


class FieldModule(nn.Module):
    """A module with the parameters of a field's networks, which it uses and does not copy.

    Args:
        field: the field.
    """

    def __init__(self, field: FieldBase) -> None:
        super().__init__()
        self.field = field
        self.networks = nn.ModuleList(field.networks)
        self.training = any(network.training for network in field.networks)

    def extra_repr(self) -> str:
        return repr(self.field)
