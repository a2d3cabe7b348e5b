"""Sampling under ``torch.compile`` and in CUDA graphs."""

from __future__ import annotations

import gc
import shutil

import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep import _sampling
from fewstep.schedules import VP, CondOT

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
#: Earlier versions cannot trace sample itself.
NEW = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)
TRACES = pytest.mark.skipif(not NEW, reason="needs PyTorch 2.13")
COMPILER = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


class Network(nn.Module):
    """Two layers; labels scale the output."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(5, 16, generator=generator).div(2).to(dtype))
        self.last = nn.Parameter(torch.randn(16, 4, generator=generator).div(4).to(dtype))
        self.eval()

    def forward(self, x, t, label=None):
        y = torch.tanh(torch.cat([x, t[:, None].to(x.dtype)], 1) @ self.first) @ self.last
        return y if label is None else y * (1 + label[:, None].to(y.dtype))


def guided(**options):
    return fs.Field(Network(), guidance=3.0, unconditional={"label": torch.zeros(1)}, **options)


LABEL = torch.tensor([0.0, 1.0, 2.0])
MOMENTS = {"data_moments": (0.1, 1.0)}
FIELDS = {
    "velocity": lambda: fs.Field(Network()),
    "noise": lambda: fs.Field(Network(), VP(), "noise", **MOMENTS),
    "guided": guided,
    "guided within": lambda: guided(guidance_interval=(0.2, 0.7)),
    "guided together": lambda: guided(joined_guidance=True),
    "bound": lambda: guided().bind(None, {"label": LABEL}, 3),
    "rescheduled": lambda: fs.Field(Network(), VP(), "noise", **MOMENTS).reschedule(CondOT()),
    "reversed": lambda: fs.Field(Network()).reversed(),
    "bfloat16": lambda: fs.Field(Network(torch.bfloat16)),
    "function": lambda: lambda x, t: -x,
}
X0 = fs.noise(3, (4,))


def conditions(name):
    return {"label": LABEL} if name.startswith("guided") else {}


def named(name, field):
    return fs.classical.named(name, 4, field.schedule if isinstance(field, fs.Field) else CondOT())


def assert_same(found, expected):
    """To the last bit; earlier versions of PyTorch take ``x.add_(y, alpha=c)`` apart when they trace it."""
    tolerance = 0 if NEW else 1e-6
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.fixture(autouse=True)
def _afresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", FIELDS)
class TestWhole:
    """Without a graph break, and to the last bit."""

    @TRACES
    def test_sample_itself(self, name):
        field = FIELDS[name]()
        solver = named("dpmpp_2m", field)
        traced = torch.compile(
            lambda x, given: solver.sample(field, x, **given), fullgraph=True, backend="eager"
        )
        assert_same(traced(X0, conditions(name)), solver.sample(field, X0, **conditions(name)))

    def test_the_program_of_compiled(self, name, monkeypatch):
        """PyTorch's own backend rounds otherwise; what is passed to it is compared here."""
        compiled = torch.compile
        monkeypatch.setattr(torch, "compile", lambda f, mode, **kw: compiled(f, backend="eager", **kw))
        field = FIELDS[name]()
        solver = named("heun", field)
        run = solver.compiled(field, X0, **conditions(name))
        for x0 in (X0, -X0):
            assert_same(run(x0, **conditions(name)), solver.sample(field, x0, **conditions(name)))


@TRACES
class TestSampleItself:
    def test_another_solver_or_field_is_seen(self):
        def run(x, solver, field):
            return solver.sample(field, x)

        traced = torch.compile(run, fullgraph=True, backend="eager")
        for solver in (fs.classical.euler(4), fs.classical.midpoint(2)):
            for field in (FIELDS["velocity"](), fs.Field(Network(), clock=(1, 0))):
                assert torch.equal(traced(X0, solver, field), run(X0, solver, field))

    def test_paths_and_callbacks(self):
        solver, field, seen = fs.classical.midpoint(2), FIELDS["velocity"](), []

        def run(x):
            return solver.sample(field, x, trajectory=True, callback=lambda j, x, m: seen.append(j))

        traced = torch.compile(run, fullgraph=True, backend="eager")(X0)
        assert seen == [0, 1, 2, 3]
        for mine, expected in zip(traced, run(X0), strict=True):
            assert torch.equal(mine, expected)

    def test_gradients(self):
        solver, field, x0 = fs.classical.midpoint(2), FIELDS["velocity"](), X0.clone().requires_grad_()

        def run(x):
            return solver.sample(field, x, differentiable=True).square().sum()

        (expected,) = torch.autograd.grad(run(x0), x0)
        (found,) = torch.autograd.grad(torch.compile(run, fullgraph=True, backend="aot_eager")(x0), x0)
        torch.testing.assert_close(found, expected)

    def test_programs_go_with_their_solver(self):
        solver, field = fs.classical.midpoint(2), FIELDS["velocity"]()
        own = f"{id(solver)} "
        torch.compile(lambda x, s: s.sample(field, x), fullgraph=True, backend="eager")(X0, solver)
        assert any(name.startswith(own) for name in _sampling._PROGRAMS)
        torch._dynamo.reset()
        del solver
        gc.collect()
        assert not any(name.startswith(own) for name in _sampling._PROGRAMS)


@COMPILER
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own
def test_default_mode_agrees_to_rounding():
    solver, field = fs.classical.dpmpp("2M", 4), guided()
    run = solver.compiled(field, X0, label=LABEL)
    torch.testing.assert_close(run(-X0, label=LABEL), solver.sample(field, -X0, label=LABEL))
    assert run.mode == "default"


class TestChecks:
    def test_a_network_that_fails_is_named(self, monkeypatch):
        monkeypatch.setattr(torch, "compile", lambda f, **_: f)
        run = fs.classical.euler(2).compiled(lambda x, t: x.log(), X0.abs())
        assert run(-X0.abs()).isnan().all()
        with pytest.raises(FloatingPointError, match="NaN or infinity at call 0 of 2, t = 0"):
            run(-X0.abs(), check=True)

    def test_modes(self):
        with pytest.raises(ValueError, match=r"mode must be one of graph, default, .* not 'fast'"):
            fs.classical.euler(2).compiled(FIELDS["velocity"](), X0, mode="fast")

    @pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
    def test_graphs_need_cuda(self):
        with pytest.raises(ValueError, match="mode 'graph' needs noise on CUDA, but like is on cpu"):
            fs.classical.euler(2).compiled(FIELDS["velocity"](), X0, mode="graph")


@CUDA
class TestGraph:
    """One CUDA graph; these run on a GPU only."""

    def test_it_replays_other_noises_and_conditions(self):
        field = guided()
        field.model.cuda()
        field = fs.Field(field.model, guidance=3.0, unconditional={"label": torch.zeros(1).cuda()})
        solver = fs.classical.dpmpp("2M", 4)
        run = solver.compiled(field, X0.cuda(), mode="graph", label=LABEL.cuda())
        kept = run(X0.cuda(), label=LABEL.cuda())
        for x0, label in ((X0, LABEL), (-X0, 1 - LABEL)):
            expected = solver.sample(field, x0.cuda(), label=label.cuda())
            torch.testing.assert_close(run(x0.cuda(), label=label.cuda()), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(kept, run(X0.cuda(), label=LABEL.cuda()), rtol=0, atol=0)

    def test_what_it_cannot_take(self):
        model = Network().cuda()
        run = fs.classical.euler(2).compiled(fs.Field(model), X0.cuda(), mode="graph", label=LABEL.cuda())
        with pytest.raises(ValueError, match=r"recorded with torch.float32 of shape \(3, 4\) on cuda:0"):
            run(X0[:2].cuda(), label=LABEL.cuda())
        with pytest.raises(ValueError, match="pass the same names"):
            run(X0.cuda())
