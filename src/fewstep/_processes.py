"""Collectives over the processes of ``torch.distributed``."""

from __future__ import annotations

import atexit
import os

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["exchange", "join_torchrun", "place", "total"]


def join_torchrun(device: str) -> str:
    """Initialise ``torch.distributed`` in a process started by ``torchrun``; return the device of this one.

    The backend is gloo on the CPU, and nccl on ``"cuda"``.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or dist.is_initialized():
        return device
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    atexit.register(dist.destroy_process_group)
    return device


def place() -> tuple[int, int]:
    """Return rank and world size: 0 and 1 without ``torch.distributed``."""
    return (dist.get_rank(), dist.get_world_size()) if _several() else (0, 1)


def exchange(tensor: Tensor) -> list[Tensor]:
    """All-gather tensors of one shape, in rank order, on a device that the backend supports.

    Without ``torch.distributed`` the result is the tensor alone.
    """
    if not _several():
        return [tensor]
    tensor = _at_meeting(tensor).contiguous()
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor)
    return parts


def total(tensor: Tensor) -> Tensor:
    """All-reduce tensors of one shape to their sum, the same to the bit in every process."""
    if not _several():
        return tensor
    result = _at_meeting(tensor).clone(memory_format=torch.contiguous_format)
    dist.all_reduce(result)
    return result.to(tensor.device)


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()


def _at_meeting(tensor: Tensor) -> Tensor:
    return tensor.to("cuda" if dist.get_backend() == "nccl" else "cpu")
