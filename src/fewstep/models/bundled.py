"""Bundled fields, and fields from network files."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from .. import schedules
from .._names import check_name
from .._reading import reading
from ..data import digits
from ..field import Field
from ..networks import load_network, network_config
from .mixture import GaussianMixture, random_mixture

__all__ = ["BUNDLED", "bundled", "load_field"]


def load_field(path: str | Path) -> Field:
    """Load a network written by :func:`save_network`, or in a folder of ``save_pretrained``, as a field.

    The field is described by the file's facts ``shape`` (of one sample), ``schedule`` (from
    :meth:`~fewstep.schedules.Schedule.to_dict`), ``prediction`` and ``clock`` (a pair or a name). The
    defaults are the network's shape, if it has one, ``CondOT``, velocity and the clock of the schedule.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is damaged or holds no fewstep network.
    """
    config = network_config(path)
    given, own = config.get("shape"), config["arguments"].get("shape")
    shape = given or own
    schedule, clock = config.get("schedule"), config.get("clock")
    network = load_network(path)
    with reading(path, "network file", "save_network"):
        if given and own and given != own:
            raise ValueError(f"its samples are of shape {given}, but its network is for {own}")
        return Field(
            network,
            None if schedule is None else schedules.from_dict(schedule),
            config.get("prediction", "velocity"),
            shape=None if shape is None else tuple(shape),
            clock=tuple(clock) if isinstance(clock, list) else clock,
            name=Path(path).resolve().name if Path(path).is_dir() else Path(path).stem,
        )


def _trained(name: str, shape: tuple[int, ...]) -> Field:
    path = files("fewstep.models") / "weights" / f"{name}.safetensors"
    return Field(load_network(str(path)), shape=shape, name=f"fewstep/{name}")


#: Bundled fields by name: a description, and a function that loads the field.
BUNDLED: dict[str, tuple[str, Callable[[], Field]]] = {
    "digits": ("flow on 8x8 digits, a perceptron", lambda: _trained("digits", (1, 8, 8))),
    "mnist": ("flow on MNIST 28x28, a U-Net", lambda: _trained("mnist", (1, 28, 28))),
    "mnist-straight": (
        "the same network trained with a learned coupling (beta 5), for 3,000 steps",
        lambda: _trained("mnist-straight", (1, 28, 28)),
    ),
    "digits-kde": (
        "exact flow of a kernel density estimate of the 8x8 digits",
        lambda: GaussianMixture(digits()[0], 0.1).field("fewstep/digits-kde"),
    ),
    "mixture": (
        "exact flow of seven narrow modes in 24 dimensions",
        lambda: random_mixture(24, 7).field("fewstep/mixture"),
    ),
    "mixture-2d": (
        "exact flow of seven modes in the plane, for plots of its paths",
        lambda: random_mixture(2, 7).field("fewstep/mixture-2d"),
    ),
}


def bundled(name: str) -> Field:
    """Return a bundled field, by its name in :data:`BUNDLED`.

    Raises:
        ValueError: on an unknown name.
    """
    check_name("bundled:", name, BUNDLED)
    return BUNDLED[name][1]()
