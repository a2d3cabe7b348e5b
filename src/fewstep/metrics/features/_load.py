"""Feature networks by name or path."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..._device import check_device
from ..._names import check_name
from ..._reading import read_tensors, reading
from ...networks._weights import load_weights
from ._classifiers import MnistClassifier, MobileNetTrunk, ResNet56
from ._inception import from_torchscript, inception
from ._network import FeatureNetwork

__all__ = ["NAMES", "load"]

#: Environment variable with the folder of data; its ``features/`` has the files that are not bundled.
_FOLDER = "FEWSTEP_DATA"


class _Kind(NamedTuple):
    """A network with weights in a safetensors file.

    ``key`` is a tensor name unique to its file; ``rename`` turns the file's content into a state dict.
    """

    title: str
    build: Callable[[], nn.Module]
    file: str
    key: str
    shape: tuple[int, ...] | None = None
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict


_KINDS = {
    "mnist": _Kind(
        "MNIST classifier", MnistClassifier, "mnist-classifier.safetensors", "trunk.0.0.weight", (1, 28, 28)
    ),
    "resnet56-cifar10": _Kind(
        "CIFAR-10 ResNet-56", ResNet56, "resnet56-cifar10.safetensors", "layer3.8.conv2.weight", (3, 32, 32),
        ResNet56.complete,
    ),
    "mobilenet-v1": _Kind(
        "ImageNet MobileNet-v1", MobileNetTrunk, "mobilenet-v1-trunk.safetensors", "pw12.w",
        rename=MobileNetTrunk.rename,
    ),
}  # fmt: skip

#: All names for :func:`load`.
NAMES = ("inception", *_KINDS)


def load(
    source: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    *,
    name: str | None = None,
    progress: bool = False,
) -> FeatureNetwork:
    """Open a feature network by name or path.

    Names:

    - ``inception``: the standard Inception network, 2048 features, the only one whose Fréchet distance is
      FID. It is read from the file in the environment variable ``FEWSTEP_INCEPTION``, or downloaded once
      (96 MB) to a folder of ``torch.hub``; its sha256 is verified before it is run.
    - ``mnist``: a bundled MNIST classifier, 64 features, for 28 x 28 grey images.
    - ``resnet56-cifar10``: a CIFAR-10 classifier (He et al. 2015), 64 features, for 32 x 32 RGB images.
    - ``mobilenet-v1``: the trunk of ImageNet's MobileNet-v1 (Howard et al. 2017), 1024 features, for
      images of any size. This and the previous one are read from ``features/*.safetensors`` in the folder
      given by the environment variable ``FEWSTEP_DATA``.

    Paths: a safetensors file of one of these networks, recognised by its keys; or a TorchScript file that
    takes uint8 ``(B, 3, H, W)`` and optionally the argument ``return_features``.

    Args:
        source: name or path.
        device: device of the network.
        name: name of a TorchScript network other than the standard Inception, for which it is required.
        progress: show the progress of a download.

    Raises:
        FileNotFoundError: when there is no such file.
        OSError: when the standard network is not on this machine and cannot be downloaded.
        ValueError: when a file is damaged, of no known kind, or not the network of its name.
    """
    device = check_device(device)
    if name is not None and (name in NAMES or "fid" in name.lower()):
        raise ValueError(f"name: {name!r} would pass for another network; choose one that says which it is.")
    word = os.fspath(source)
    if word == "inception":
        return inception(device, progress)
    if word in _KINDS:
        return _from_tensors(_find(word), device, word)
    path = Path(word).expanduser()
    if path.suffix == ".safetensors":
        return _from_tensors(path, device)
    if not path.suffix and not path.exists():
        check_name("features: network", word, NAMES, ", or a path")
    return from_torchscript(path, device, name)


def _find(name: str) -> Path:
    """Return the file of a named network."""
    file = _KINDS[name].file
    bundled = Path(str(files("fewstep.metrics.features") / "weights" / file))
    folder = os.environ.get(_FOLDER)
    path = Path(folder).expanduser() / "features" / file if folder else None
    found = next((each for each in (bundled, path) if each is not None and each.exists()), None)
    if found is None:
        looked = f"{path} does not exist" if path else f"{_FOLDER} is not set"
        raise FileNotFoundError(
            f"features: {name} is not on this machine: {looked}; give the path of {file}, or set {_FOLDER} "
            f"to a folder with features/{file} in it."
        )
    return found


def _from_tensors(path: Path, device: torch.device, expected: str | None = None) -> FeatureNetwork:
    """Load a known network with the weights in a safetensors file."""
    with reading(path, "safetensors file of a feature network"):
        weights = read_tensors(path, None).tensors
    name = next((name for name, kind in _KINDS.items() if kind.key in weights), None)
    if name is None or expected not in (None, name):
        raise ValueError(
            f"{path}: holds {name or 'no network that is known here'}, where {expected or 'one of'} "
            f"{'was' if expected else ', '.join(_KINDS)} expected."
        )
    kind = _KINDS[name]
    network: Any = kind.build()
    with reading(path, "safetensors file of a feature network"):
        load_weights(network, kind.rename(weights), str(path))
        digest = sha256(path.read_bytes()).hexdigest()
    network.to(device).requires_grad_(False)
    title = f"Fréchet distance, {kind.title}"
    return FeatureNetwork(network, name, network.num_features, title, digest, device, kind.shape)
