"""Sampling on the device gives the CPU's samples, without waiting for it between the network's calls."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import fewstep as fs
from fewstep.classical import METHODS
from fewstep.families import Guided, NonStationary, ScaleTime, SmoothCorrections, Timesteps
from fewstep.schedules import DDPM, VE, VP, CondOT, Cosine, Polynomial

pytestmark = pytest.mark.device

KINDS = {
    "CondOT": (CondOT(), "velocity"),
    "VP": (VP(), "noise"),
    "VE": (VE(), "data"),
    "Cosine": (Cosine(), "v"),
    "DDPM": (DDPM(steps=20), "noise"),
}
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1])
AWAY = {"guidance": 2.0, "unconditional": {"label": torch.tensor([-1])}}
MOMENTS = {"data_moments": (torch.tensor([0.1, 0.0, -0.2]), 0.5)}


@pytest.fixture
def x0():
    return fs.noise(7, (3,))


@pytest.fixture
def sampled(each, close, x0):
    """``sampled(fields, sample)``: ``sample(field, x0)`` is on the device what it is on the CPU."""

    def check(fields, sample, **tolerances):
        expected, found = each(fields, lambda field: sample(field, x0.to(field.device)))
        close(found, expected, **tolerances)

    return check


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nfe", [1, 4])
def test_classical_solvers(both, each, close, x0, kind, nfe):
    fields = both(*KINDS[kind])
    for solver in fs.classical.baselines(nfe, fields[0].schedule).values():
        expected, found = each(fields, lambda field, solver=solver: solver.sample(field, x0.to(field.device)))
        close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


SMOOTH = SmoothCorrections("ab2", CondOT(), terms=2)
FAMILIES = {
    "timesteps": Timesteps("ab2", 4, CondOT()),
    "non-stationary": NonStationary(Timesteps("deis3/cosine", 4, CondOT(), decoupled=True)),
    "scale-time": ScaleTime("midpoint", 2),
    "scale-time on ab2": ScaleTime("ab2", 4),
    "smooth": SMOOTH.member(4).own,
    "guided": Guided(SMOOTH, 1.0, 3.0, 2).member(4, 2.0).own,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_families(both, sampled, name):
    family = FAMILIES[name]
    solver = family.solver(0.05 * torch.ones(family.size, dtype=torch.float64))
    sampled(both(), solver.sample)
    sampled(both(VP(), "v"), fs.classical.named("dpmpp_2m", 4, VP()).unroll().sample)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("noise", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_half_precision(both, sampled, dtype, noise):
    for solver in (fs.classical.named("deis3", 4), fs.classical.midpoint(2)):

        def sample(field, x0, solver=solver):
            x1 = solver.sample(field, x0.to(noise))
            assert x1.dtype == noise
            return x1

        sampled(both(dtype=dtype), sample, rtol=0.03, atol=0.03)


@pytest.mark.parametrize(
    "options", [{}, {"guidance_interval": (0.2, 0.7)}, {"time_shape": "scalar"}], ids=str
)
def test_guidance_and_conditions(both, sampled, options):
    fields, some = both(**AWAY, **options), torch.tensor([5, 2, 2])

    def bound(field):
        return field.bind(None, {"label": LABELS.to(field.device)}, 7)

    for solver in (fs.classical.named("deis3", 4), fs.classical.midpoint(2)):
        sampled(fields, lambda f, x, s=solver: s.sample(f, x, label=LABELS.to(x.device)))
        sampled(fields, lambda f, x, s=solver: s.sample(bound(f), x))
        sampled(fields, lambda f, x, s=solver: s.sample(bound(f).rows(slice(2, 4)), x[2:4]))
        for index in (lambda x: some, lambda x: some.to(x.device)):
            sampled(fields, lambda f, x, s=solver, i=index: s.sample(bound(f).rows(i(x)), x[i(x)]))


@pytest.mark.parametrize("kind", KINDS)
def test_times_of_their_own_for_samples(both, sampled, kind):
    fields = both(*KINDS[kind], guidance_interval=(0.2, 0.7), **AWAY)
    t = torch.linspace(0.05, 0.95, 7)
    for name in ("velocity", "data", "noise"):
        for time in (lambda x: t.to(x.device), lambda x: t):  # those on the CPU are moved
            sampled(
                fields,
                lambda f, x, n=name, at=time: f.predict_as(n, x, at(x), label=LABELS.to(x.device)),
                rtol=1e-3,
                atol=1e-3,
            )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change",
    [lambda f: f.reversed(), lambda f: f.reschedule(Polynomial(2.0)), lambda f: f.reschedule(VP(0.2))],
)
def test_reversed_and_rescheduled_fields(both, sampled, kind, change):
    heun = fs.classical.heun(grid=(0.05, 0.4, 0.9))
    sampled(both(*KINDS[kind], **MOMENTS), lambda f, x: heun.sample(change(f), x), rtol=1e-3, atol=1e-3)


def test_the_path_is_on_the_device(both, sampled):
    for name in ("x1", "states", "predictions"):
        sampled(
            both(), lambda f, x, n=name: getattr(fs.classical.midpoint(2).sample(f, x, trajectory=True), n)
        )


def test_gradients(both, sampled):
    def gradient(of):
        def sample(field, x0):
            x0 = x0.clone().requires_grad_()
            field.model.requires_grad_(True)
            field.model.zero_grad()
            fs.classical.named("ab2", 4).sample(field, x0, differentiable=True).square().sum().backward()
            return of(field, x0).grad

        return sample

    sampled(both(), gradient(lambda field, x0: x0))
    sampled(both(), gradient(lambda field, x0: field.model.first.weight))


def test_a_network_that_returns_nan_is_named(both, device, x0):
    _, there = both()
    there.model.last.bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="NaN or infinity at call 0"):
        fs.classical.euler(2).sample(there, x0.to(device))


@pytest.fixture
def strictly():
    """``strictly(network, nfe)``: a callback; from the first call to the last, every wait is an error."""

    def wrap(network, nfe):
        network.register_forward_pre_hook(lambda *_: torch.cuda.set_sync_debug_mode("error"))

        def called(j, x, prediction):
            called.calls += 1
            if j == nfe - 1:
                torch.cuda.set_sync_debug_mode("default")

        called.calls = 0
        return called

    yield wrap
    torch.cuda.set_sync_debug_mode("default")


def same(field, device):
    return field


CHANGES = {
    "plain": ({}, same),
    "guided": (AWAY, lambda field, device: field.bind({"label": LABELS.to(device)}, None, 7)),
    "interval": (
        {**AWAY, "guidance_interval": (0.2, 0.7)},
        lambda field, device: field.bind(None, {"label": LABELS.to(device)}, 7),
    ),
    "one row": ({}, lambda field, device: field.bind(None, {"label": LABELS[:1].to(device)}, 7)),
    "scalar": ({"time_shape": "scalar"}, same),
    "moments": (MOMENTS, same),
    "reversed": ({}, lambda field, device: field.reversed()),
    "rescheduled": (MOMENTS, lambda field, device: field.reschedule(Polynomial(2.0))),
}


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # is a prototype
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", CHANGES)
def test_nothing_waits_between_the_first_call_and_the_last(both, device, x0, strictly, kind, change):
    options, changed = CHANGES[change]
    _, there = both(*KINDS[kind], **options)
    field, callback, x0 = changed(there, device), strictly(there.model, 4), x0.to(device)
    grid = (0.05, 0.3, 0.6, 0.8, 0.95) if change in ("reversed", "rescheduled") else fs.grids.uniform(4)
    for name in ("ab2", "deis3", "dpmpp_2m"):
        solver = METHODS[name].on(grid, field.schedule)
        solver.sample(field, x0, callback=callback)
        solver.sample(field, x0, callback=callback, trajectory=True)
    assert callback.calls == 4 * 6


def test_threads_share_a_solver(both, device, close, x0, entered):
    here, there = both()
    solver, noises = fs.classical.named("deis3", 6), [x0 + k for k in range(8)]
    moved = [noise.to(device) for noise in noises]

    def sample(noise):
        with entered():
            return solver.sample(there, noise)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(sample, moved))
    for noise, x1 in zip(noises, found, strict=True):
        close(x1, solver.sample(here, noise))


def test_streams_share_a_solver(both, close, real, x0):
    here, there = both()
    solver, noises = fs.classical.named("deis3", 6), [x0 + k for k in range(8)]
    moved = [noise.to(real) for noise in noises]
    streams, found = [torch.cuda.Stream() for _ in range(2)], []
    torch.cuda.synchronize()
    for k, noise in enumerate(moved):
        with torch.cuda.stream(streams[k % 2]):
            found.append(solver.sample(there, noise))
    torch.cuda.synchronize()
    for noise, x1 in zip(noises, found, strict=True):
        close(x1, solver.sample(here, noise))


def test_a_sampling_is_captured_in_a_graph(both, close, real, x0):
    """Nothing of it, tables included, is sent to the device after the first time."""
    here, there = both()
    solver, noise = fs.classical.named("deis3", 4), x0.to(real)
    with torch.no_grad():
        aside = torch.cuda.Stream()
        torch.cuda.synchronize()
        with torch.cuda.stream(aside):
            solver.sample(there, noise, differentiable=True)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            x1 = solver.sample(there, noise, differentiable=True)
    noise.copy_(x0 + 1)
    graph.replay()
    close(x1, solver.sample(here, x0 + 1))


def test_states_that_no_row_reads_are_freed(real):
    """Euler's method takes as much memory with many steps as with few."""
    peaks = []
    x0 = torch.randn(2**22, 3, device=real)
    for steps in (4, 32):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        fs.classical.euler(steps).sample(lambda x, t: -x, x0)
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[1] <= 1.05 * peaks[0]
