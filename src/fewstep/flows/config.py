"""A flat training configuration for YAML files and the command line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from .._extras import require
from .._names import check_name, guess
from .._reading import read_object
from ..data import Dataset, load
from ..networks import GaussianEncoder, build_network, song_unet_preset
from ..networks.song_unet import check_kind
from ._by_name import COUPLINGS
from .kl_weight import KLWeight
from .objective import FlowMatching
from .settings import Settings

__all__ = ["TrainConfig"]

#: A name, a JSON file of Fast-ODE, or a class or preset with constructor arguments.
Spec = str | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Data, network and coupling of a training, and its :class:`~fewstep.flows.Settings`.

    Args:
        data: a name or path for :func:`fewstep.data.load`.
        validation: data to validate on: a path, or ``"test"`` for the test split of ``data``.
        resolution: resize images to this side.
        channels: convert images to grey (1) or RGB (3).
        network: ``"unet"`` (small), ``"mlp"``, the name of a published DDPM++ configuration
            (``"mnist"``, ``"cifar10"``, ``"ffhq"``, ``"afhq"``, ``"celebahq256"``), a JSON file of Fast-ODE,
            or a mapping of ``class`` (``UNet``, ``MLP``, ``SongUNet``, ``DiffusersUNet``) and its arguments.
            Channels and resolution default to those of the data. A mapping with ``preset``, such as
            ``{preset: cifar10, checkpoint: true}``, is a published configuration with changes. By name they
            embed ``1000 t`` where the published ones embed ``t``, which ``time_scale: 1`` restores; a JSON
            file is taken as it is.
        encoder: likewise, for learned couplings; ``None`` is a smaller network like ``network``.
        coupling: how noise is coupled with data: a name in :data:`fewstep.flows.COUPLINGS`.
        beta: weight of the KL term of learned couplings: a number, or a ramp ``{start, end, steps}``.
    """

    data: str
    validation: str | None = None
    resolution: int | None = None
    channels: int | None = None
    network: str | dict[str, Any] = "unet"
    encoder: str | dict[str, Any] | None = None
    coupling: str = dataclasses.field(default="independent", metadata={"choices": COUPLINGS})
    beta: float | KLWeight = 10.0

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name("coupling:", self.coupling, COUPLINGS)

    @classmethod
    def parse(cls, entries: Mapping[str, Any]) -> TrainConfig:
        """Validate and convert entries from YAML or a command line.

        Raises:
            ValueError: on unknown keys or wrong values, listing all of them.
        """
        pydantic = require("pydantic", "train")
        known = [f.name for f in dataclasses.fields(cls)]
        unknown = [key for key in entries if key not in known]
        if unknown:
            hints = ", ".join(f"{key!r}{guess(key, known)}" for key in unknown)
            raise ValueError(f"config: unknown {hints}; known are {', '.join(known)}.")
        try:
            config: TrainConfig = pydantic.TypeAdapter(cls).validate_python(dict(entries))
        except pydantic.ValidationError as error:
            problems = []
            for problem in error.errors():
                if "error" in problem.get("ctx", {}):  # our own sentence
                    raise ValueError(f"config: {problem['ctx']['error']}") from None
                name = str(problem["loc"][0]) if problem["loc"] else "config"
                given = f", not {problem['input']!r}" if problem["type"] != "missing" else ""
                problems.append(f"{name}: {problem['msg'][0].lower()}{problem['msg'][1:]}{given}")
            raise ValueError(f"config: {'; '.join(dict.fromkeys(problems))}.") from None
        return config

    def settings(self) -> Settings:
        """The part that a trainer takes."""
        return Settings(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Settings)})

    def to_dict(self) -> dict[str, Any]:
        """Every entry, ready for YAML and JSON."""
        entries: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        how = {f.name for f in dataclasses.fields(Settings)}
        return dict(sorted(entries.items(), key=lambda entry: entry[0] in how))  # data and network first

    def load_data(self) -> tuple[Dataset, Dataset | None]:
        """Load the training data and the validation data."""
        how: dict[str, Any] = {"resolution": self.resolution, "channels": self.channels}
        train = load(self.data, split="train", **how)
        if self.validation is None:
            return train, None
        test = self.validation == "test"
        source, split = (self.data, "test") if test else (self.validation, "train")
        return train, load(source, split=split, **how)

    def objective(self, shape: tuple[int, ...]) -> FlowMatching:
        """Build flow and coupling with fresh networks for samples of a shape.

        Their weights are drawn from torch's global generator; seed it for reproducible ones.
        """

        def encoder() -> GaussianEncoder:
            spec = _smaller(self.network) if self.encoder is None else self.encoder
            return GaussianEncoder(_make_network(spec, shape, outputs=2 * shape[0]))

        flow = _make_network(self.network, shape)
        return FlowMatching(flow, COUPLINGS[self.coupling].build(encoder, self.beta))


def _make_network(spec: Spec, shape: tuple[int, ...], outputs: int | None = None) -> nn.Module:
    """Build the network that ``spec`` describes; an encoder has ``outputs`` channels at the output."""
    entries = _entries(spec, encoder=outputs is not None)
    kind = entries.pop("class")
    if kind != "MLP" and len(shape) != 3:
        raise ValueError(f"network: a {kind} takes images, not samples of shape {shape}; use 'mlp'.")
    fitting: dict[str, dict[str, Any]] = {
        "MLP": {"shape": shape, "out_channels": outputs},
        "UNet": {"channels": shape[0], "out_channels": outputs},
        "SongUNet": {
            "img_resolution": shape[-1],
            "in_channels": shape[0],
            "out_channels": outputs or shape[0],
        },
    }
    try:
        return build_network({"class": kind, "arguments": fitting.get(kind, {}) | entries})
    except TypeError as error:  # an argument that the constructor does not have
        raise ValueError(f"network: {kind} cannot be built: {error}.") from None


def _smaller(spec: Spec) -> Spec:
    """Return the default encoder for a network: the published one, or a smaller network of its class."""
    preset = spec.get("preset") if isinstance(spec, Mapping) else spec
    if preset and not preset.endswith(".json") and preset not in ("unet", "mlp"):
        return str(preset)  # a published network comes with its encoder
    entries = _entries(spec, encoder=False)
    width = {"UNet": 64, "MLP": 256}
    if entries["class"] not in width:
        raise ValueError(
            "encoder: must be given for this network, which has no smaller version; name one, such as "
            "encoder={class: UNet, width: 32}."
        )
    half = int(entries.get("width", width[entries["class"]])) // 2
    return {**entries, "width": max(8, half // 8 * 8), "blocks": 1}


def _entries(spec: Spec, encoder: bool) -> dict[str, Any]:
    """Return class and arguments in one mapping."""
    if isinstance(spec, Mapping):
        if "preset" in spec:
            changes = {key: value for key, value in spec.items() if key != "preset"}
            return _entries(spec["preset"], encoder) | changes
        if "class" not in spec:
            raise ValueError(f"network: must name its class, as in {{class: UNet, width: 64}}, not {spec!r}.")
        return dict(spec)
    if spec in ("unet", "mlp"):
        return {"class": {"unet": "UNet", "mlp": "MLP"}[spec]}
    if spec.endswith(".json"):
        try:
            fields = read_object(spec, "configuration of a network", "EDM's training")
        except OSError as error:
            raise ValueError(f"network: {error}") from None
        check_kind(fields, f"network: {spec}")
        return {"class": "SongUNet", **fields}
    # Published networks embed t unscaled, where most sinusoids are nearly constant; new ones scale it.
    return {"class": "SongUNet", **song_unet_preset(spec, encoder=encoder), "time_scale": 1000.0}
