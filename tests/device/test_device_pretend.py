"""The pretended device fails where CUDA does, and sees where the host waits."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from _pretend import CUDA, OnDevice
from torch import nn

import fewstep as fs

HERE = Path(__file__).name

pytestmark = [
    pytest.mark.device,
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real device"),
]


@pytest.fixture
def x(pretended):
    return torch.tensor([1.0, 2.0, 3.0], device="cuda")


def test_tensors_are_made_and_moved_there(x):
    zeros = torch.zeros(3)
    made = [x, x + 1, zeros.to("cuda"), zeros.to(x), x.new_zeros(2), x.new_tensor([1.0]), torch.randn_like(x)]
    made += [torch.ones(3, device="cuda:0"), torch.arange(3, device=CUDA), torch.as_tensor(1.0, device=CUDA)]
    for y in made:
        assert isinstance(y, OnDevice)
        assert y.device == torch.device("cuda", 0) != torch.device("cuda")
        assert (y.is_cuda, y.is_cpu, y.is_meta) == (True, False, False)
    assert x.to("cuda") is x
    assert not isinstance(x.cpu(), OnDevice)
    assert not isinstance(torch.zeros_like(x, device="cpu"), OnDevice)
    assert (x * 2).tolist() == [2, 4, 6]
    with pytest.raises(RuntimeError, match="ordinal"):
        torch.zeros(3, device="cuda:1")


def test_views_and_operations_in_place_are_of_one_tensor(x):
    y = x[1:]
    assert y.mul_(10) is y
    assert x.tolist() == [1, 20, 30]
    x[x > 25] = 0.0
    x[[0]] = torch.tensor([5.0], device="cuda")
    assert torch.add(x, 1, out=x) is x
    assert x.tolist() == [6, 21, 1]
    assert x.unsqueeze(0).squeeze_().shape == (3,)


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x, y: x + y,
        lambda x, y: y.add_(x[0]),
        lambda x, y: torch.cat([x, y]),
        lambda x, y: torch.stack([x[0], y[0]]),
        lambda x, y: x @ y,
        lambda x, y: torch.where(x > 0, y, x),
        lambda x, y: torch.index_select(x, 0, y.long()),
        lambda x, y: torch.searchsorted(y, x),
        lambda x, y: y[x.long() - 1],
        lambda x, y: x.__setitem__(x > 0, y),
        lambda x, y: nn.functional.linear(x, y[None]),
    ],
)
def test_tensors_of_two_devices_do_not_meet(x, mixed):
    mixed(x.cpu(), x.cpu() - 1)  # is right on one device
    with pytest.raises(RuntimeError, match="same device"):
        mixed(x, x.cpu() - 1)


def test_the_meetings_that_cuda_allows(x):
    number = torch.tensor(2.0, dtype=torch.float64)
    for y in (
        x * number,
        number - x,
        torch.where(x > 1, x, number),
        x.masked_fill(x > 1, number),
        x[torch.tensor([0, 2])],
    ):
        assert y.device == CUDA
        assert y.dtype == torch.float32
    x.copy_(torch.zeros(3))
    x[torch.tensor([True, False, True])] = number.float()
    assert x.tolist() == [2, 0, 2]


def test_numpy_and_generators_of_the_other_device_are_refused(x):
    for read in (x.numpy, lambda: __import__("numpy").asarray(x)):
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            read()
    torch.randn(3, device="cuda", generator=torch.Generator("cuda"))
    for device, other in (("cuda", "cpu"), ("cpu", "cuda")):
        with pytest.raises(RuntimeError, match=f"'{device}' device type for generator but found '{other}'"):
            torch.randn(3, device=device, generator=torch.Generator(other))


@pytest.mark.parametrize(
    ("wait", "count"),
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: float(x[0]) + int(x[1]), 2),
        (lambda x: bool((x > 0).all()), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: torch.zeros(3).to(x), 1),
        (lambda x: torch.tensor(1.0, device="cuda"), 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: x[x > 1], 1),
        (lambda x: x[torch.tensor([0, 1])], 1),
        (lambda x: x[[0, 1]], 1),
        (lambda x: torch.equal(x, x), 1),
        (lambda x: x[x.long()[0] - 1], 1),  # an index without dimensions is read
        (lambda x: torch.zeros(3).pin_memory().to(x.device, non_blocking=True), 0),
        (lambda x: x.masked_fill(x > 1, 0.0), 0),
        (lambda x: x.__setitem__(x > 1, 0.0), 0),
        (lambda x: x[x.long() - 1], 0),
        (lambda x: torch.full((3,), 2.0, device="cuda") * torch.tensor(2.0), 0),
        (lambda x: (x.double(), x.to("cuda"), x.mean(), x[1:], x.sort(), x.cumsum(0)), 0),
    ],
)
def test_waits_are_counted(x, pretended, wait, count):
    pretended.waits.clear()
    wait(x)
    assert len(pretended.waits) == count
    assert all(HERE in found.stack[0] for found in pretended.waits)


def test_modules_are_moved_trained_and_copied(x):
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 1))
    expected, weight = copy.deepcopy(net), net[0].weight
    assert net.to("cuda")[0].weight is weight
    for module, at in ((net, x), (expected, x.cpu())):
        optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            torch.utils.checkpoint.checkpoint(module, at, use_reentrant=False).square().sum().backward()
            optimizer.step()
    assert isinstance(net[0].weight, nn.Parameter)
    torch.testing.assert_close(
        copy.deepcopy(net).half().cpu().float()[0].weight, expected[0].weight, atol=1e-3, rtol=0
    )


class Planted(nn.Module):
    """A network with a fault."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault
        self.weight = nn.Parameter(torch.ones(3))
        self.eval()

    def forward(self, x, t):
        return self.fault(self.weight * x)


def test_a_tensor_of_the_cpu_in_a_loop_is_caught(pretended):
    field = fs.Field(Planted(lambda x: x + torch.zeros(3)).to("cuda"))
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        fs.classical.euler(2).sample(field, fs.noise(2, (3,), device="cuda"))


def test_a_wait_in_a_loop_is_caught(pretended):
    field = fs.Field(Planted(lambda x: x * x.sum().item()).to("cuda"))
    x0, solver = fs.noise(2, (3,), device="cuda"), fs.classical.euler(2)
    pretended.waits.clear()
    solver.sample(field, x0)
    assert sum(HERE in wait.stack[0] for wait in pretended.waits) == 2
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match=f"synchronizing CUDA operation: _local_scalar_dense at .*{HERE}"):
        solver.sample(field, x0)
