"""The device of these tests: CUDA if there is one, else a pretended one."""

from __future__ import annotations

import contextlib
import copy
import os

import pytest
import torch
from _pretend import Pretended, PretendedGenerator, pinned
from torch import nn

import fewstep as fs

REAL = torch.cuda.is_available()
os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # float32 in full precision, to compare with the CPU's


class Small(nn.Module):
    """A smooth network of three dimensions, with a label for each sample; -1 is none."""

    def __init__(self, outputs=3):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 12), nn.Linear(12, outputs)
        self.label = nn.Parameter(torch.randn(5, 12))

    def forward(self, x, t, label=None):
        t = t.to(x.dtype).expand(len(x))
        h = self.first(torch.cat([x, t[:, None]], dim=1))
        if label is not None:
            h = h + self.label[label]  # the last row for -1
        return self.last(torch.tanh(h))


@pytest.fixture
def pretended(monkeypatch):
    """The pretended device, entered."""
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda device=None: "pretended",
        "synchronize": lambda device=None: None,
        "is_current_stream_capturing": lambda: False,
        "manual_seed": torch.default_generator.manual_seed,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    if hasattr(torch, "accelerator"):
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    monkeypatch.setattr(torch, "Generator", PretendedGenerator)
    device = Pretended()
    monkeypatch.setattr(
        torch.cuda, "set_sync_debug_mode", lambda mode: setattr(device, "strict", mode == "error")
    )
    engine = torch.autograd._engine_run_backward
    monkeypatch.setattr(torch.autograd, "_engine_run_backward", device.through(engine))
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    with device.entered():
        yield device
    torch.__future__.set_swap_module_params_on_conversion(swapped)


@pytest.fixture
def device(request):
    """``cuda``."""
    if not REAL:
        request.getfixturevalue("pretended")
    return torch.device("cuda")


@pytest.fixture
def real(device):
    """``cuda``, for tests of what the pretended device has not."""
    if not REAL:
        pytest.skip("needs CUDA: streams and memory are not pretended")
    return device


@pytest.fixture
def entered(device, request):
    """A context that other threads need to use the device."""
    return contextlib.nullcontext if REAL else request.getfixturevalue("pretended").entered


@pytest.fixture
def guided():
    """Options of a field: guidance away from no label."""
    return {"guidance": 2.0, "unconditional": {"label": torch.tensor([-1])}}


@pytest.fixture
def both(device):
    """``both(*arguments, **options)``: a field on the CPU, and the same on the device."""

    def make(*arguments, network=None, dtype=torch.float32, **options):
        network = (network or Small().to(dtype)).eval().requires_grad_(False)
        options.setdefault("shape", (3,))
        there = copy.deepcopy(network).to(device)
        away = {name: value.to(device) for name, value in options.get("unconditional", {}).items()}
        moved = {**options, "unconditional": away} if away else options
        return fs.Field(network, *arguments, **options), fs.Field(there, *arguments, **moved)

    return make


@pytest.fixture
def each(device, request):
    """``each(fields, measure)``: what ``measure(field)`` finds on the CPU, and on the device."""
    left = contextlib.nullcontext if REAL else request.getfixturevalue("pretended").left

    def run(fields, measure):
        here, there = fields
        with left():
            expected = measure(here)
        return expected, measure(there)

    return run


@pytest.fixture
def close(device):
    """``close(found, expected)``: what is on the device agrees with what the CPU has, in float32."""

    def check(found, expected, rtol=1e-4, atol=1e-5):
        assert found.device.type == device.type
        assert expected.device.type == "cpu"
        torch.testing.assert_close(found.cpu(), expected, rtol=rtol, atol=atol)

    return check


@pytest.fixture
def waits(request):
    """The places where the host has waited for the device."""
    if REAL:
        pytest.skip("only the pretended device counts them")
    return request.getfixturevalue("pretended").waits
