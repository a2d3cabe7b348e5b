"""A pipeline of another make, without any class of diffusers but its scheduler."""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from tiny_pipelines import draw
from torch import nn

__all__ = ["Loop", "Net", "X"]


class Loop:
    """A pipeline of another make: ``model_output`` from the network's outputs by ``mixing``."""

    def __init__(self, network, mixing=lambda k, out: out, scheduler=None, time=lambda t: t, **kept):
        self.network, self.mixing, self.time, self.kept = network, mixing, time, kept
        self.scheduler, self.after = scheduler or FlowMatchEulerDiscreteScheduler(), lambda x: x

    def __call__(self, latents, prompt=None, num_inference_steps=3, **given):
        self.scheduler.set_timesteps(num_inference_steps)
        x = latents
        for k, t in enumerate(self.scheduler.timesteps):
            out = self.network(x, self.time(t).expand(len(x)), **self.kept, **given)
            x = self.scheduler.step(self.mixing(k, out), t, x).prev_sample
        return self.after(x)


class Net(nn.Module):
    """An elementwise network of unusual names."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.5, -0.3]))
        self.eval()

    def forward(self, field_of_x, when, **_):
        t = when.reshape(-1, 1).to(field_of_x.dtype)
        return torch.tanh(field_of_x * self.scale) + 0.1 * (t / 1000).sin()


X = draw(3, 2, seed=1)
