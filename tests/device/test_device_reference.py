"""References, adaptive sampling and likelihoods on the device."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.schedules import DDPM, VP, CondOT

pytestmark = pytest.mark.device

KINDS = [(CondOT(), "velocity"), (VP(), "noise"), (DDPM(steps=20), "noise")]
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1])
LOOSE = {"rtol": 1e-3, "atol": 1e-3}


@pytest.fixture
def x0():
    return fs.noise(7, (3,))


@pytest.fixture
def guided(guided):
    return {
        **guided,
        "guidance_interval": (0.2, 0.7),
        "data_moments": (torch.tensor([0.1, 0.0, -0.2]), 0.5),
    }


@pytest.fixture(autouse=True)
def torchdiffeq():
    pytest.importorskip("torchdiffeq")


@pytest.mark.parametrize(
    ("kind", "change"), [(0, "rescheduled"), (1, "reversed"), (1, "rescheduled"), (2, "plain")]
)
def test_solutions(both, each, close, x0, guided, kind, change):
    def solve(field):
        changed = {"plain": field, "reversed": field.reversed(), "rescheduled": field.reschedule(VP(0.2))}[
            change
        ]
        own = {"label": LABELS.to(field.device)}
        return fs.reference.solve(changed, x0.to(field.device), times=(0.0, 0.5, 0.9), **LOOSE, **own).states

    expected, found = each(both(*KINDS[kind], **guided), solve)
    close(found, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_pairs(both, each, close, x0, guided, dtype, tmp_path):
    def make(field):
        own, cache = {"label": LABELS.to(field.device)}, tmp_path / field.device.type
        return fs.reference.pairs(
            field, x0.to(field.device), batch=4, dtype=dtype, per_sample=own, cache=cache
        )

    fields = both(**guided)
    expected, found = each(fields, make)
    close(found.x1, expected.x1, rtol=1e-3, atol=1e-3)
    assert torch.equal(make(fields[1]).x1, found.x1)  # from the cache
    assert found.error < 1e-3


def test_pairs_are_saved_and_some_are_taken(device, close, x0, tmp_path):
    own = {"label": LABELS.to(device), "weight": LABELS.tolist(), "array": LABELS.numpy()}
    found = fs.Pairs(x0.to(device), x0.to(device), per_sample=own, seeds=torch.arange(7))
    index = torch.tensor([3, 1])
    for some in (found[index], found[index.to(device)]):
        close(some.x1, x0[index])
        close(some.per_sample["label"], LABELS[index])
        assert list(some.per_sample["weight"]) == some.per_sample["array"].tolist() == [3, 1]
        assert some.seeds.tolist() == some.origin[0].tolist() == [3, 1]
    found.save(tmp_path / "pairs.safetensors")
    assert torch.equal(fs.Pairs.load(tmp_path / "pairs.safetensors").x1, x0)
    loaded = fs.Pairs.load(tmp_path / "pairs.safetensors", device)
    close(loaded.x1, x0)
    close(loaded.per_sample["label"], LABELS)
    assert loaded[index.to(device)].seeds.tolist() == loaded[index].seeds.tolist() == [3, 1]


@pytest.mark.parametrize(("schedule", "prediction"), KINDS, ids=str)
def test_adaptive_sampling(both, each, close, x0, guided, schedule, prediction):
    def sample(field):
        points = []
        own = {"label": LABELS.to(field.device)}
        found = fs.Adaptive(**LOOSE).sample(
            field, x0.to(field.device), per_sample=own, callback=lambda *point: points.append(point)
        )
        assert {part.device.type for point in points for part in point[:2]} == {"cpu"}
        assert points[-1][2].device.type == field.device.type
        return found

    expected, found = each(both(schedule, prediction, **guided), sample)
    close(found.x1, expected.x1, rtol=1e-2, atol=1e-2)
    assert found.nfe.device.type == "cpu"
    assert (found.nfe - expected.nfe).abs().max() <= 12


def test_adaptive_sampling_waits_three_times_a_step(both, device, x0, waits):
    """For the errors, and to send the times, and which samples are accepted."""
    _, there = both()
    x0 = x0.to(device)
    waits.clear()
    found = fs.Adaptive().sample(there, x0)
    steps = int((found.accepted + found.rejected).max())
    arrivals = len(found.nfe.unique())
    assert len(waits) <= 3 * steps + 5 * arrivals + 6


@pytest.mark.parametrize("schedule", [CondOT(), VP(), DDPM(steps=20)], ids=str)
def test_a_schedule_is_evaluated_on_the_device(device, close, waits, schedule):
    """Times without dimensions, as solvers of one step size have them, and one for each sample."""
    times = torch.linspace(0.1, 0.9, 5)
    for dtype in (torch.float32, torch.float64):
        t = times.to(device, dtype)
        schedule(t)  # copies its numbers to the device
        waits.clear()
        found = schedule(t), schedule(t[2]), schedule.inverse_log_snr(schedule.log_snr(t[2]))
        assert not waits
        close(found[0].sigma, schedule(times.to(dtype)).sigma)
        close(found[1].alpha, schedule(times.to(dtype)).alpha[2])
        close(found[2], times[2].to(dtype), rtol=1e-3)


@pytest.mark.parametrize("search", [fs.grids.gits, fs.grids.optimal_steps])
@pytest.mark.parametrize("rule", ["euler", "ddim"])
def test_searches_of_a_grid(both, each, x0, guided, search, rule):
    candidates = fs.grids.uniform(6) if rule == "euler" else (0, 0.2, 0.4, 0.6, 0.8, 0.9)

    def run(field):
        own = {"label": LABELS.to(field.device)}
        return search(
            field, 3, x0.to(field.device), candidates=candidates, rule=rule, per_sample=own, **LOOSE
        )

    expected, found = each(both(**guided), run)
    assert found.grid == expected.grid
    assert found.cost == pytest.approx(expected.cost, rel=1e-2)


def test_a_search_of_a_grid_reads_its_costs_once(both, device, x0, waits):
    _, there = both()
    counts = []
    for steps in (6, 12):
        waits.clear()
        fs.grids.gits(there, 3, x0.to(device), candidates=fs.grids.uniform(steps), batch=4, **LOOSE)
        counts.append(sum("_grid_" in wait.stack[0] for wait in waits))
    assert counts[0] == counts[1] <= 4


def test_likelihoods(both, each, close, x0):
    fields = both()
    for options in ({}, {"divergence": "hutchinson", "probes": 2}):
        expected, found = each(
            fields, lambda f, own=options: fs.log_likelihood(f, x0.to(f.device), **LOOSE, **own)
        )
        close(found.log_prob, expected.log_prob, rtol=1e-2, atol=1e-2)
        close(found.latents, expected.latents, rtol=1e-2, atol=1e-2)
        assert found.bits_per_dim().device.type == "cuda"


def test_noise_is_that_of_the_cpu(device):
    assert torch.equal(fs.noise(3, (2,), device=device).cpu(), fs.noise(3, (2,)))
