"""Where CUDA refuses an operation for its devices, and where the host waits for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["META", "check_devices", "is_cuda", "waits"]

#: Where the C++ of PyTorch takes the tensors of the pretended device to be.
META = torch.device("meta", 0)

#: Operations whose result the host reads: a number, a size, or an error of the algorithm.
READ = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2", "unique_dim", "bincount"} | {
    "unique_consecutive", "_linalg_check_errors", "_linalg_eigh", "_linalg_svd",
}  # fmt: skip
#: Operations of tensors on two devices.
ACROSS = {"copy_", "_to_copy", "_foreach_copy_", "lift_fresh"}
#: Operations that index a tensor by others.
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
#: Operations besides pointwise ones of two tensors that take a CPU tensor without dimensions.
SCALARS = {"where", "masked_fill", "masked_fill_", "fill", "fill_"} | INDEXING


def is_cuda(device: Any) -> bool:
    """Return whether a device, or its name, is the pretended one."""
    name = str(device) if isinstance(device, torch.device | str) else ""
    return name.split(":")[0] == "cuda" or name == str(META)


def check_devices(func: Any, name: str, args: Any, tensors: list[Tensor]) -> None:
    """Raise for tensors on two devices where CUDA does."""
    strangers = [x for x in tensors if not x.is_cuda]
    if name in ACROSS or not strangers:
        return
    if name in INDEXING:
        if not args[0].is_cuda:
            raise RuntimeError(
                "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
            )
        strangers = [x for x in args[2:3] if not x.is_cuda]
    if any(x.is_meta for x in strangers):
        raise AssertionError(f"{name}: a tensor of PyTorch's own meta device has come from somewhere.")
    pointwise = len(tensors) <= 2 and torch.Tag.pointwise in func.tags
    scalars = pointwise or name in SCALARS or name.startswith("_foreach")
    written = name.endswith("_") and name != "fill_" and not tensors[0].is_cuda
    if written or any(x.ndim or not scalars for x in strangers):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"(in {name}, with shapes {[tuple(x.shape) for x in tensors]})"
        )


def waits(name: str, args: Any, kwargs: Any) -> bool:
    """Return whether the host waits for the device, or sends it memory that is not pinned."""
    if name in ("copy_", "_to_copy"):
        source = args[name == "copy_"]
        target = args[0].is_cuda if name == "copy_" else is_cuda(kwargs.get("device") or source.device)
        return target != source.is_cuda and not getattr(source, "pinned", False)
    if name in INDEXING:
        given = [x for x in args[1] if x is not None]
        masks = any(x.dtype in (torch.bool, torch.uint8) for x in given)
        fills = len(args) > 2 and args[2].numel() == 1 and len(given) == 1  # is done by masked_fill
        return (masks and not fills) or not all(x.is_cuda for x in given)
    return name in READ or (name == "repeat_interleave" and kwargs.get("output_size") is None)
