"""Flow matching with the independent coupling, small enough to read in one go."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .._files import write_safetensors
from .._progress import progress_bar

__all__ = ["flow_matching_loss", "train_flow"]


def flow_matching_loss(model: nn.Module, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """Mean of ``(u(x_t, t) - (x1 - x0))^2`` on the straight path ``x_t = t x1 + (1 - t) x0``.

    Lipman et al., *Flow Matching for Generative Modeling* (ICLR 2023), eq. 23 with sigma_min = 0.

    Args:
        model: ``model(x, t) -> velocity``.
        x0: noise, shape ``(B, ...)``.
        x1: data, like ``x0``.
        t: times in [0, 1], shape ``(B,)``.
    """
    t_ = t.reshape(-1, *[1] * (x1.ndim - 1))
    velocity: Tensor = model(t_ * x1 + (1 - t_) * x0, t)
    return (velocity.to(x1.dtype) - (x1 - x0)).square().mean()


def train_flow(
    model: nn.Module,
    draw: Callable[[int, torch.Generator], Tensor],
    *,
    steps: int,
    batch: int,
    lr: float,
    seed: int = 0,
    ema_half_life: int = 500,
    warmup: int = 200,
    bfloat16: bool = False,
    checkpoint: Path | None = None,
    checkpoint_every: int = 1000,
) -> nn.Module:
    """Train ``model`` as a flow and return its exponential moving average.

    Step ``k`` draws data, noise and times from a generator of its own, seeded by ``(seed, k)``: a
    run that was interrupted and resumed takes the very steps of one that never stopped.

    Args:
        model: ``model(x, t) -> velocity``; trained in place.
        draw: ``draw(batch, generator) -> x1``, a batch of data.
        steps: optimiser steps.
        batch: samples a step.
        lr: peak learning rate of Adam, after a linear warm-up and before a cosine decay to zero.
        seed: seed of everything that is drawn.
        ema_half_life: half-life of the weight average, in steps.
        warmup: steps of linear warm-up.
        bfloat16: run the network under bfloat16 autocast.
        checkpoint: safetensors file to resume from and to save to; ``None`` keeps nothing.
        checkpoint_every: steps between saves.
    """
    average = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    done = _resume(checkpoint, model, average, optimizer) if checkpoint else 0

    bar = progress_bar(total=steps, initial=done, desc="training", unit="step")
    running = math.nan
    for step in range(done, steps):
        # The generator reads 32 bits of its seed; multiples of this odd number spread the seeds over them.
        generator = torch.Generator().manual_seed((seed * 0x9E3779B1 + step) % 2**32)
        x1 = draw(batch, generator)
        x0 = torch.randn(x1.shape, generator=generator)
        t = torch.rand(batch, generator=generator)
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))
        with torch.autocast(x1.device.type, torch.bfloat16, enabled=bfloat16):
            loss = flow_matching_loss(model, x0, x1, t)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # A young average forgets faster, or it would remember the initial weights.
        decay = 0.5 ** (1 / min(ema_half_life, 0.1 * (step + 1)))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)

        bar.update()
        if step % 50 == 0:
            running = loss.item() if math.isnan(running) else 0.7 * running + 0.3 * loss.item()
            bar.set_postfix(loss=f"{running:.4f}")
        if checkpoint and ((step + 1) % checkpoint_every == 0 or step + 1 == steps):
            _save(checkpoint, step + 1, model, average, optimizer)
    bar.close()
    return average.eval()


def _save(path: Path, step: int, model: nn.Module, average: nn.Module, optimizer: torch.optim.Adam) -> None:
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
    write_safetensors(path, tensors, {"step": str(step)})


def _resume(path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Adam) -> int:
    if not path.exists():
        return 0
    tensors = load_file(path)
    model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    average.load_state_dict({k[8:]: v for k, v in tensors.items() if k.startswith("average.")})
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("adam."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return int(next(iter(state.values()))["step"])
