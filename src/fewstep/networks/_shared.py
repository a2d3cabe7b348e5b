"""Networks that files, folders and the Hugging Face Hub hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from .._card import network_card
from .._hub import Shared
from .._hub_files import NETWORK
from ..field import Field
from ._weights import describe
from .file import NETWORKS, load_network, network_config, save_network

__all__ = ["SharedNetwork"]

Made = TypeVar("Made", bound="SharedNetwork")

#: What a network's file says of the field that it is.
_FACTS = ("shape", "schedule", "prediction", "clock")


class SharedNetwork(Shared, nn.Module):
    """Base of the networks of this package."""

    _FILE: ClassVar[str] = NETWORK

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.__module__.startswith(f"{__package__}."):  # others could not be found again
            NETWORKS[cls.__name__] = getattr(cls, "from_config", cls)

    def _write(self, path: Path, facts: dict[str, Any]) -> None:
        save_network(path, self, **self._described(facts))

    @classmethod
    def _read(cls: type[Made], path: Path) -> Made:
        found = network_config(path)["class"]
        if found != cls.__name__ and found in NETWORKS:
            raise ValueError(
                f"{cls.__name__}.from_pretrained: {path} is of the class {found}; load it with "
                f"fewstep.networks.{found}.from_pretrained."
            )
        network = load_network(path)
        assert isinstance(network, cls)
        return network

    def _body(self, name: str, facts: dict[str, Any]) -> str:
        config = describe(self)
        weights = sum(weight.numel() for weight in self.parameters())
        return network_card(name, config["class"], config["arguments"], weights, self._described(facts))

    def _check_facts(self, method: str, facts: dict[str, Any]) -> None:
        super()._check_facts(method, {key: value for key, value in facts.items() if key not in _FACTS})

    def _described(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Return the facts ready for JSON."""
        found = Field(_nothing, **facts).describe()  # as training goes on, self would warn of it
        return {key: found[key] for key in facts}


def _nothing(x: Tensor, t: Tensor) -> Tensor:
    return x
