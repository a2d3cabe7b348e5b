"""The Inception network of published FIDs, and other networks in TorchScript."""

from __future__ import annotations

import io
import os
import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..._archives import check_packed
from ..._download import download
from ..._reading import reading
from ._network import FeatureNetwork

__all__ = ["from_torchscript", "inception"]

#: Environment variable with the file of the standard network.
_FILE = "FEWSTEP_INCEPTION"

#: Szegedy and others' Inception of 2015-12-05 in TorchScript, as StyleGAN2-ADA and EDM use it.
_ADDRESS = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
#: sha256 of that file as k-diffusion checks it (crowsonkb/k-diffusion, ``k_diffusion/evaluation.py``); other
#: public evaluation code that names one names the same, among it scripts for clean-fid's copy of the file.
_DIGEST = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"

#: Most bytes of a download; the file has 96 million.
_MOST = 200_000_000


def inception(device: torch.device, progress: bool) -> FeatureNetwork:
    """Load the standard network from the file in ``FEWSTEP_INCEPTION``, the cache, or its URL."""
    given = os.environ.get(_FILE)
    if given:
        return from_torchscript(Path(given).expanduser(), device)
    path = Path(torch.hub.get_dir()) / "fewstep" / "inception-2015-12-05.pt"
    if not path.exists():
        _fetch(path, progress)
    return from_torchscript(path, device)


def from_torchscript(path: Path, device: torch.device, name: str | None = None) -> FeatureNetwork:
    """Load a network from a TorchScript file, which is hashed before any of its code runs.

    A network other than the standard one needs a ``name``.
    """
    with reading(path, "TorchScript network", "torch.jit.save"):
        check_packed(path)
        content = path.read_bytes()
    found = sha256(content).hexdigest()
    known = "inception" if found == _DIGEST else name
    if known is None:
        raise ValueError(
            f"{path}: is not the standard Inception network, whose sha256 begins with {_DIGEST[:8]}, but "
            f"{found[:8]}...; fetch it again from {_ADDRESS}, or give this network a name of its own, under "
            "which its distance is reported instead of FID."
        )
    with reading(path, "TorchScript network", "torch.jit.save"):
        network = _TorchScript(_read(content)).to(device).eval()
        with torch.no_grad():
            trial = network(torch.zeros(1, 3, 299, 299, dtype=torch.uint8, device=device))
        if not isinstance(trial, Tensor) or trial.ndim != 2 or len(trial) != 1:
            raise ValueError("it does not map a picture to a row of numbers")
    title = "FID" if found == _DIGEST else f"Fréchet distance, {known}"
    return FeatureNetwork(network, known, trial.shape[-1], title, found, device)


class _TorchScript(nn.Module):
    """Calls a network as in StyleGAN's metrics: for features, on images of three channels."""

    def __init__(self, network: torch.jit.ScriptModule) -> None:
        super().__init__()
        self._network = network
        forward: Any = network.forward
        known = [argument.name for argument in forward.schema.arguments]
        self._options = {"return_features": True} if "return_features" in known else {}

    def forward(self, pictures: Tensor) -> Tensor:
        if pictures.shape[1] == 1:
            pictures = pictures.expand(-1, 3, -1, -1)
        features: Tensor = self._network(pictures, **self._options)
        return features


def _read(content: bytes) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        # The one format that the standard network exists in.
        warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", DeprecationWarning)
        network: torch.jit.ScriptModule = torch.jit.load(io.BytesIO(content), map_location="cpu")
    return network


def _fetch(path: Path, progress: bool) -> None:
    """Download the standard network to ``path``, atomically and verified, or raise."""

    def check(found: str) -> None:
        if found != _DIGEST:
            raise ValueError(
                f"inception: what {_ADDRESS} sent is not the standard network (its sha256 begins with "
                f"{found[:8]}, not {_DIGEST[:8]}), and was not kept; get the file elsewhere and set {_FILE} "
                "to it."
            )

    try:
        download(_ADDRESS, path, most=_MOST, check=check, title="Inception", progress=progress)
    except OSError as error:
        raise OSError(
            f"inception: the network is neither in {path} nor to be had from {_ADDRESS} ({error}); set "
            f"{_FILE} to a copy of the file, or use other features, whose distance is not FID."
        ) from None
