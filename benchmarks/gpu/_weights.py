"""Networks in half precision, in safetensors files that are small enough to carry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from fewstep._files import write_safetensors
from fewstep.networks import build_network
from fewstep.networks._weights import describe, load_weights

__all__ = ["LARGEST", "load", "save"]

#: Largest file in bytes, and what its header may take of them.
LARGEST, _HEADER = 16 * 2**20, 2**17

_KEY, _NAMES = "fewstep.benchmark.weights", "weights-*.safetensors"


def save(
    folder: Path, networks: Mapping[str, nn.Module], facts: Mapping[str, Any], largest: int = LARGEST
) -> None:
    """Write the weights of networks by name, in float16, with their configurations, in place of older ones.

    Args:
        folder: where to write ``weights-0.safetensors`` and so on.
        networks: networks of this package by name.
        facts: facts to keep with them, ready for JSON.
        largest: most bytes of a file.

    Raises:
        ValueError: when one tensor is larger than that.
    """
    files: list[dict[str, Tensor]] = [{}]
    room = largest - _HEADER
    for name, network in networks.items():
        for key, value in network.state_dict().items():
            value = value.detach().half() if value.is_floating_point() else value
            if value.nbytes > largest - _HEADER:
                raise ValueError(
                    f"weights: {name}.{key} has {value.nbytes} bytes, too many for files of {largest}."
                )
            if value.nbytes > room:
                files.append({})
                room = largest - _HEADER
            files[-1][f"{name}.{key}"] = value
            room -= value.nbytes
    configs = {name: describe(network) for name, network in networks.items()}
    text = json.dumps({"files": len(files), "networks": configs, "facts": dict(facts)})
    paths = [folder / f"weights-{k}.safetensors" for k in range(len(files))]
    for path, tensors in zip(paths, files, strict=True):
        write_safetensors(path, tensors, {_KEY: text})
    for old in {*folder.glob(_NAMES)} - {*paths}:
        old.unlink()


def load(folder: Path) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """Return the networks, with weights in float32, and facts that :func:`save` wrote.

    Raises:
        FileNotFoundError: when the folder holds no such files, or not all of them.
        ValueError: when the files are of different networks, or lack tensors.
    """
    texts, tensors = set(), {}
    paths = sorted(folder.glob(_NAMES))
    for path in paths:
        with safe_open(path, "pt") as file:
            texts.add((file.metadata() or {}).get(_KEY, ""))
            tensors |= {key: file.get_tensor(key) for key in file.keys()}
    if len(texts) > 1 or "" in texts:
        raise ValueError(
            f"weights: the files {_NAMES} in {folder} are not of one training; keep those of one there."
        )
    content = json.loads(texts.pop()) if texts else {"files": "some"}
    if len(paths) != content["files"]:
        raise FileNotFoundError(
            f"weights: {folder} holds {len(paths)} files {_NAMES} of {content['files']}; put all there."
        )
    networks = {}
    for name, config in content["networks"].items():
        networks[name] = build_network(config)
        own = {key.removeprefix(f"{name}."): x for key, x in tensors.items() if key.startswith(f"{name}.")}
        load_weights(networks[name], own, f"{folder}, {name}")
    return networks, content["facts"]
