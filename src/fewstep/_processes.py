"""What the processes of ``torch.distributed`` tell each other."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["exchange", "place", "total"]


def place() -> tuple[int, int]:
    """The number of this process and how many there are: 0 and 1 without ``torch.distributed``."""
    return (dist.get_rank(), dist.get_world_size()) if _several() else (0, 1)


def exchange(tensor: Tensor) -> list[Tensor]:
    """A tensor of the same shape from every process, in their order, lying where the backend can take them.

    Where ``torch.distributed`` is not initialised, this process is the only one.
    """
    if not _several():
        return [tensor]
    tensor = _at_meeting(tensor).contiguous()
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor)
    return parts


def total(tensor: Tensor) -> Tensor:
    """The sum of a tensor of the same shape over all processes, with the same bits in each."""
    if not _several():
        return tensor
    result = _at_meeting(tensor).clone(memory_format=torch.contiguous_format)
    dist.all_reduce(result)
    return result.to(tensor.device)


def _several() -> bool:
    return dist.is_available() and dist.is_initialized()


def _at_meeting(tensor: Tensor) -> Tensor:
    return tensor.to("cuda" if dist.get_backend() == "nccl" else "cpu")
